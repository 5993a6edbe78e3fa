"""The benchmarks measure what they say, on networks small enough for a test."""

import functools
import inspect
import json
import re
import sys

import keras
import numpy as np
import pytest
from absl import flags

from divco_tf.models.backbones.resnet import ResNeXtSpec
from divco_tf.models.branch_stack import build
from divco_tf.models.division import branch_spec
from divco_tf.models.template import build_network
from divco_tf.tools.benchmarks import checkpoint, compile_time, memory, step
from tests.runs import runs
from tests.tools.in_process import TOOLS, fresh_program
from tests.tools.told_times import told_times  # noqa: F401 the fixture

SIZES = {"num_classes": 3, "input_shape": (8, 8, 3)}


TINY = {"batch_size": 4, "image_size": 8, "num_classes": 3, "report": lambda line: None}


def test_a_step_is_told_beside_separate_models(told_times, monkeypatch):  # noqa: F811
    monkeypatch.setattr(step, "torch_version", lambda: None)
    result = step.run(backbone="tiny", split_factor=2, rounds=2, steps=3, **TINY)
    kept = json.loads(json.dumps({key: result[key] for key in ("settings", "systems")}))
    assert kept["settings"]["split_factor"] == 2
    names = [
        *("branch stack", "branch stack, TensorFlow's threads"),
        *("separate Keras models", "separate Keras models, the stack's threads", "S=1 network"),
    ]
    # The turn before the rounds is not counted: n times 2 and 3 s.
    assert [system["rounds"] for system in kept["systems"].values()] == [[2 * n, 3 * n] for n in range(1, 6)]
    assert list(kept["systems"]) == names
    assert kept["systems"]["S=1 network"]["step_of_separate"] == 5 / 3
    assert result["rows"][0] == ("branch stack", "1.00", "2.00", "0.33", "2.500", "0.33", "2.000")
    assert result["rows"][4] == ("S=1 network", "5.00", "10.00", "1.67", "12.500", "1.67", "10.000")


def test_compile_tells_both_ways_to_the_first_step(told_times):  # noqa: F811
    backbones = {"backbones": ["tiny"], "split_factor": 2, "batch_size": 2}
    result = compile_time.run(**backbones, report=lambda line: None)
    assert result["rows"] == [
        ("tiny, branch stack", "1.00", "2.00", "3.00", "0.50", "100"),
        ("tiny, separate Keras models", "2.00", "4.00", "6.00", "1.00", "200"),
    ]
    times = result["systems"]["tiny"]["branch stack"]
    assert (times["together"], times["of_separate"], times["peak_mb"]) == (3, 0.5, 100)


def test_memory_tells_peak_and_time_of_every_way(told_times):  # noqa: F811
    result = memory.run(backbone="tiny", split_factors=(1, 2), rounds=2, steps=2, **TINY)
    one, two = result["systems"]["S=1"], result["systems"]["S=2"]
    assert list(one) == ["plain", "4 micro-batches", "remat", "remat, 4 micro-batches"]  # one branch has no turn
    assert list(two) == [*one, "branches in turn", "remat, branches in turn"]
    assert [system["step_mb"] for system in one.values()] == [1, 2, 3, 4]
    assert [system["memory_of_plain"] for system in one.values()] == [1, 2, 3, 4]
    assert two["plain"]["rounds"] == [5, 10] and two["4 micro-batches"]["step_of_plain"] == 6 / 5
    assert one["4 micro-batches"]["estimate_mb"] < one["plain"]["estimate_mb"] < two["plain"]["estimate_mb"]
    assert one["plain"]["estimate_off"] == one["plain"]["estimate_mb"] - 1
    assert [len(row) for row in result["rows"]] == [len(result["head"])] * 10
    json.dumps(result)


def test_checkpoint_tells_what_a_save_costs():
    result = checkpoint.run(backbone="tiny", split_factor=2, rounds=2, **TINY)
    found = result["systems"]["checkpoint"]
    assert len(found["saves"]) == 2
    assert all(save["call"] <= save["written"] for save in found["saves"])
    parameters = sum(v.numpy().size for v in build("tiny", split_factor=2, **SIZES).trainable_variables)
    assert found["megabytes"] > 2 * 4 * parameters / 2**20  # with the optimizer's momentum
    assert len(result["rows"][0]) == len(result["head"])


def test_kills_compares_all_that_a_run_ends_with(tmp_path):
    from divco_tf.tools.benchmarks.kills import state

    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        runs.run(tmp_path / name, runs.experiment(epochs=1, seed=seed))
    assert state(tmp_path / "one") == state(tmp_path / "same")
    (sums, records), (others, other_records) = state(tmp_path / "one"), state(tmp_path / "other")
    assert sums != others and records != other_records


def test_agreement_tells_weights_from_statistics():
    from divco_tf.tools.benchmarks import agreement

    case = agreement.Case(agreement.NORM)
    one, other = case.experiment().build(10), case.experiment().build(10)
    assert set(agreement._differences(one, other, case).values()) == {0.0}
    one.trainable_variables[0].assign_add(one.trainable_variables[0] * 0 + 0.5)
    variance = next(v for v in one.non_trainable_variables if "variance" in v.name)
    variance.assign(variance * 1.25)
    found = {"weights": 0.5, "weights_moved": 0, "statistics": 0.25, "statistics_moved": 0}
    assert agreement._differences(one, other, case) == pytest.approx(found)


def test_separate_models_have_kerass_own_batch_norm(monkeypatch):
    used = []
    call = keras.layers.BatchNormalization.call

    @functools.wraps(call)  # Keras reads the signature
    def noted(self, *args, **options):
        used.append(type(self))
        return call(self, *args, **options)

    monkeypatch.setattr(keras.layers.BatchNormalization, "call", noted)
    spec = branch_spec("tiny", split_factor=2)
    labels = np.eye(3, dtype=np.float32)[:2]
    step._separate_step(spec, 2, SIZES, np.zeros((2, 2, 8, 8, 3), np.float32), labels)()
    assert set(used) == {keras.layers.BatchNormalization}


def test_separate_models_are_trained_by_the_same_loss_as_the_stack():
    spec = branch_spec("tiny", split_factor=2)
    rng = np.random.default_rng(0)
    views = rng.standard_normal((4, 2, 8, 8, 3)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[rng.integers(3, size=4)]
    stack = step.stack_step(step.cotraining_model(build(spec=spec, copies=2, **SIZES)), views, labels)
    separate = step._separate_step(spec, 2, SIZES, views, labels)
    # Initial logits are nearly 0 whatever the draw (a linear layer of standard deviation 1e-3): 2 log 3.
    assert stack() == pytest.approx(2 * np.log(3), abs=0.05)
    assert separate() == pytest.approx(2 * np.log(3), abs=0.05)


@pytest.mark.parametrize(
    "spec", [branch_spec("wide_resnet10_2"), ResNeXtSpec((1, 1), width=16, base_width=16, groups=2)], ids=str
)
def test_the_pytorch_twin_computes_what_the_keras_network_does(spec):
    torch = pytest.importorskip("torch", reason="PyTorch is for comparison only, and not installed")
    from divco_tf.tools.laboratory.torch_twin import TorchTwin

    network = build_network(spec, **SIZES)
    rng = np.random.default_rng(1)
    for variable in network.variables:
        variable.assign(rng.uniform(0.2, 0.6, variable.shape) * (1 if variable.path.endswith("variance") else 0.3))
    twin = TorchTwin(network).eval()
    weighted = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    by_node = [
        node.operation
        for _, nodes in sorted(network._nodes_by_depth.items(), reverse=True)
        for node in nodes
        if node.operation.weights
    ]
    with torch.no_grad():
        modules = [part for part in twin.parts if isinstance(part, weighted)]
        for layer, module in zip(by_node, modules, strict=True):
            values = [torch.tensor(weight.numpy()) for weight in layer.weights]
            if isinstance(module, torch.nn.BatchNorm2d):
                for target, value in zip(
                    (module.weight, module.bias, module.running_mean, module.running_var), values, strict=True
                ):
                    target.copy_(value)
            elif isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(values[0].permute(3, 2, 0, 1))
            else:
                module.weight.copy_(values[0].T)
                module.bias.copy_(values[1])
        image = rng.standard_normal((2, 8, 8, 3)).astype(np.float32)
        output = twin(torch.tensor(image.transpose(0, 3, 1, 2))).numpy()
    assert np.allclose(output, network(image).numpy(), atol=1e-4 * np.abs(output).max())


def test_every_way_of_a_grouped_convolution_is_timed(monkeypatch):
    from divco_tf.tools.benchmarks import grouped as benchmark

    monkeypatch.setattr(benchmark, "NETWORKS", {})
    monkeypatch.setattr(benchmark, "TURN", 0.0)
    result = benchmark.run(rounds=2, report=lambda line: None, shapes={"tiny": ((1, 4, 4, 8), 2)})
    systems = json.loads(json.dumps(result["systems"]))["tiny"]
    assert len(result["rows"]) == len(systems) >= 6
    for name, system in systems.items():
        assert len(system["rounds"]) == (1 if name in benchmark.ONCE else 2)
        assert system["of_ours"] == pytest.approx(
            np.median(np.divide(system["rounds"], systems[benchmark.OURS]["rounds"][: len(system["rounds"])]))
        )
    assert systems[benchmark.OURS]["of_ours"] == 1


def test_every_way_of_a_grouped_convolution_has_the_same_gradients():
    from divco_tf.tools.benchmarks import grouped as benchmark

    ways = {name: make for name, make in benchmark._convolutions((2, 4, 4, 8), 4) if name != benchmark.TORCH}
    expected = ways[benchmark.OURS]()()
    for name, make in ways.items():
        for gradient, reference in zip(make()(), expected, strict=True):
            np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["step", "--rounds=0"], "flag --rounds=0: 0 is not a positive integer. Received: step --rounds=0;"),
        (["step", "--num_classes=1"], "flag --num_classes=1: "),
        (["step", "--backbone=wide_resent16_8"], "Did you mean wide_resnet16_8"),
        (["memory", "--split_factors=1,x"], "--split_factors is no list of whole numbers. Received: x"),
        (["step", "--out=."], "--out is a file. Received: ., a folder; result.json works."),
        (["step", "--out=file/x.json"], "The folder of --out cannot be written"),
        (["stpe"], "Did you mean step?"),
        (["grouped", "--steps=3"], "`grouped` has no --steps. Received: --steps; it takes --rounds, --out."),
        (["agreement", "--noxla"], "`agreement` has no --xla. Received: --xla; it takes --out."),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(divco, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert says in divco.refusal("benchmark", *arguments)


def test_a_command_gets_the_flags_that_were_given_and_tells_its_table_and_json(divco, tmp_path, monkeypatch):
    got = {}

    @functools.wraps(memory.run)
    def run(*, report, **given):
        got.update(given)
        return {"head": ("", "s"), "rows": [("x", "1")], "settings": {"steps": 3}, "systems": {"x": [1]}}

    monkeypatch.setattr(memory, "run", run)
    arguments = ("memory", "--split_factors=2,4", "--xla", "--steps=3")
    result = divco("benchmark", *arguments, f"--out={tmp_path / 'result.json'}")
    assert (result.status, result.stdout) == (0, "   s\n-  -\nx  1\n")
    assert got == {"split_factors": [2, 4], "xla": True, "steps": 3}
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept["command"].endswith(" ".join(arguments) + f" --out={tmp_path / 'result.json'}")
    assert kept["machine"]["cores"] >= 1 and (kept["settings"], kept["systems"]) == ({"steps": 3}, {"x": [1]})


def test_every_flag_is_a_parameter_of_a_command_and_has_its_default_there(divco):
    with fresh_program("benchmark") as program:
        taken = [inspect.signature(program.run_of(command)).parameters for command in program.COMMANDS]
        for flag in program.PARAMETERS:
            assert any(flag.name in parameters for parameters in taken)
            assert flags.FLAGS[flag.name].default is None
    for parameters in taken:
        assert all(
            parameter.default is not parameter.empty for name, parameter in parameters.items() if name != "report"
        )


def test_commands_of_the_results_have_flags_that_they_take(divco):
    text = (TOOLS.parent / "docs" / "results.md").read_text()
    told = re.findall(r"divco-benchmark (\w+)((?: --[^`\n]*)?)", text)
    assert len(told) > 15
    with fresh_program("benchmark") as program:
        for command, given in told:
            parameters = inspect.signature(program.run_of(command)).parameters
            assert set(re.findall(r"--(\w+)", given)) - {"out"} <= set(parameters), (command, given)


def test_what_needs_the_laboratory_says_that_it_needs_a_checkout(divco, monkeypatch):
    for module in [
        name for name in sys.modules if re.match(r"divco_tf\.tools\.(laboratory|benchmarks\.(views|jpeg))", name)
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "divco_tf.tools.laboratory", None)
    line = divco.refusal("benchmark", "views")
    assert "`views` needs a checkout. Received: an installed divco_tf; in a checkout python tools/benchmark.py" in line
