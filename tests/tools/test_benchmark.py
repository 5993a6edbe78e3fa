"""The benchmarks measure what they say, on networks small enough for a test."""

import functools
import json

import keras
import numpy as np
import pytest

from divco_tf.models.backbones.resnet import ResNeXtSpec
from divco_tf.models.branch_stack import build
from divco_tf.models.spec import branch_spec
from divco_tf.models.template import build_network
from tests.training import runs

SIZES = {"num_classes": 3, "input_shape": (8, 8, 3)}


@pytest.fixture(scope="module")
def result():
    from divco_tf.tools import _benchmark_step

    return _benchmark_step.run(
        "wide_resnet10_2",
        division={"split_factor": 2},
        batch_size=4,
        image_size=8,
        num_classes=3,
        rounds=2,
        steps=1,
        report=lambda line: None,
    )


def test_every_system_is_timed_in_every_round(result):
    systems = result["systems"]
    assert {"branch stack", "separate Keras models", "S=1 network"} <= set(systems)
    threads = {"branch stack, TensorFlow's threads", "separate Keras models, the stack's threads"}
    assert threads <= set(systems)
    for system in systems.values():
        assert len(system["rounds"]) == 2
        assert min(system["build"], system["first"], *system["rounds"]) > 0
    assert systems["separate Keras models"]["step_of_separate"] == 1
    assert len(result["rows"]) == len(systems)


def test_the_result_is_json_with_machine_and_settings(result):
    kept = json.loads(json.dumps({key: result[key] for key in ("command", "machine", "settings", "systems")}))
    assert kept["machine"]["cores"] >= 1
    assert kept["settings"]["split_factor"] == 2


def test_compile_tells_both_ways_to_the_first_step():
    from divco_tf.tools import _benchmark_compile

    result = _benchmark_compile.run(
        backbones=["wide_resnet10_1"], split_factor=2, batch_size=2, report=lambda line: None
    )
    times = result["systems"]["wide_resnet10_1"]
    assert set(times) == {"branch stack", "separate Keras models"}
    assert times["separate Keras models"]["of_separate"] == 1
    seconds = {name: system["build"] + system["first"] for name, system in times.items()}
    assert times["branch stack"]["together"] == seconds["branch stack"] > 0
    assert times["branch stack"]["of_separate"] == seconds["branch stack"] / seconds["separate Keras models"]
    assert all(system["peak_mb"] > 100 for system in times.values())
    assert len(result["rows"]) == 2


def test_memory_tells_peak_and_time_of_every_way():
    from divco_tf.tools import _benchmark_memory

    result = _benchmark_memory.run(
        "wide_resnet10_1",
        split_factors=(1,),
        batch_size=32,
        image_size=32,
        num_classes=3,
        rounds=1,
        steps=1,
        report=lambda line: None,
    )
    systems = result["systems"]["S=1"]
    assert set(systems) == {"plain", "4 micro-batches", "remat", "remat, 4 micro-batches"}  # one branch has no turn
    # 37 and 12 MB on an idle machine; what an allocator kept of the step before would leave nothing to see.
    assert 20 < systems["plain"]["step_mb"] < 90 and systems["4 micro-batches"]["memory_of_plain"] < 0.7
    assert systems["plain"]["memory_of_plain"] == systems["plain"]["step_of_plain"] == 1
    assert all(system["estimate_mb"] > 1 and min(system["rounds"]) > 0 for system in systems.values())
    assert len(result["rows"]) == len(systems)
    json.dumps(result)


def test_checkpoint_tells_what_a_save_costs():
    from divco_tf.tools import _benchmark_checkpoint

    result = _benchmark_checkpoint.run(
        "wide_resnet10_2",
        split_factor=2,
        batch_size=4,
        image_size=8,
        num_classes=3,
        rounds=2,
        report=lambda line: None,
    )
    found = result["systems"]["checkpoint"]
    assert len(found["saves"]) == 2
    assert all(0 < save["call"] <= save["written"] and save["step"] > 0 for save in found["saves"])
    parameters = sum(v.numpy().size for v in build("wide_resnet10_2", split_factor=2, **SIZES).trainable_variables)
    assert found["megabytes"] > 2 * 4 * parameters / 2**20  # with the optimizer's momentum
    assert len(result["rows"][0]) == len(result["head"])


def test_kills_compares_all_that_a_run_ends_with(tmp_path):
    from divco_tf.tools._benchmark_kills import state

    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        runs.run(tmp_path / name, runs.experiment(epochs=1, seed=seed))
    assert state(tmp_path / "one") == state(tmp_path / "same")
    (sums, records), (others, other_records) = state(tmp_path / "one"), state(tmp_path / "other")
    assert sums != others and records != other_records


def test_agreement_tells_weights_from_statistics():
    from divco_tf.tools import _benchmark_agreement as agreement

    case = agreement.Case(agreement.NORM)
    one, other = case.experiment().build(10), case.experiment().build(10)
    assert set(agreement._differences(one, other, case).values()) == {0.0}
    one.trainable_variables[0].assign_add(one.trainable_variables[0] * 0 + 0.5)
    variance = next(v for v in one.non_trainable_variables if "variance" in v.name)
    variance.assign(variance * 1.25)
    found = {"weights": 0.5, "weights_moved": 0, "statistics": 0.25, "statistics_moved": 0}
    assert agreement._differences(one, other, case) == pytest.approx(found)


def test_separate_models_have_kerass_own_batch_norm(monkeypatch):
    from divco_tf.tools import _benchmark_step

    used = []
    call = keras.layers.BatchNormalization.call

    @functools.wraps(call)  # Keras reads the signature
    def noted(self, *args, **options):
        used.append(type(self))
        return call(self, *args, **options)

    monkeypatch.setattr(keras.layers.BatchNormalization, "call", noted)
    spec = branch_spec("wide_resnet10_2", split_factor=2)
    labels = np.eye(3, dtype=np.float32)[:2]
    _benchmark_step._separate_step(spec, 2, SIZES, np.zeros((2, 2, 8, 8, 3), np.float32), labels)()
    assert set(used) == {keras.layers.BatchNormalization}


def test_separate_models_are_trained_by_the_same_loss_as_the_stack():
    from divco_tf.tools import _benchmark_step

    spec = branch_spec("wide_resnet10_2", split_factor=2)
    rng = np.random.default_rng(0)
    views = rng.standard_normal((4, 2, 8, 8, 3)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[rng.integers(3, size=4)]
    stack = _benchmark_step.stack_step(
        _benchmark_step.cotraining_model(build(spec=spec, copies=2, **SIZES)), views, labels
    )
    separate = _benchmark_step._separate_step(spec, 2, SIZES, views, labels)
    # Initial logits are nearly 0 whatever the draw (a linear layer of standard deviation 1e-3): 2 log 3.
    assert stack() == pytest.approx(2 * np.log(3), abs=0.05)
    assert separate() == pytest.approx(2 * np.log(3), abs=0.05)


@pytest.mark.parametrize(
    "spec", [branch_spec("wide_resnet10_2"), ResNeXtSpec((1, 1), width=16, base_width=16, groups=2)], ids=str
)
def test_the_pytorch_twin_computes_what_the_keras_network_does(spec):
    torch = pytest.importorskip("torch", reason="PyTorch is for comparison only, and not installed")
    from divco_tf.tools._torch_twin import TorchTwin

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
    from divco_tf.tools import _benchmark_grouped as benchmark

    monkeypatch.setattr(benchmark, "NETWORKS", {})
    monkeypatch.setattr(benchmark, "TURN", 0.0)
    result = benchmark.run(rounds=2, report=lambda line: None, shapes={"tiny": ((1, 4, 4, 8), 2)})
    systems = json.loads(json.dumps(result["systems"]))["tiny"]
    assert len(result["rows"]) == len(systems) >= 6
    for name, system in systems.items():
        assert len(system["rounds"]) == (1 if name in benchmark.ONCE else 2)
        assert min(system["first"], *system["rounds"]) > 0
    assert systems[benchmark.OURS]["of_ours"] == 1


def test_every_way_of_a_grouped_convolution_has_the_same_gradients():
    from divco_tf.tools import _benchmark_grouped as benchmark

    ways = {name: make for name, make in benchmark._convolutions((2, 4, 4, 8), 4) if name != benchmark.TORCH}
    expected = ways[benchmark.OURS]()()
    for name, make in ways.items():
        for gradient, reference in zip(make()(), expected, strict=True):
            np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-4, err_msg=name)
