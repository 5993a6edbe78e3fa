"""What keeps an experiment from being trained is one line, from the plan as from training, and nothing is written."""

import dataclasses
import json
import math
import pathlib
import types
import typing

import pytest

from divco_tf import files
from divco_tf.data.pipeline import ORDER
from divco_tf.data.sources import ArraySource
from divco_tf.errors import InputError
from divco_tf.models import spec_json
from divco_tf.models.backbones.registry import BACKBONES, backbone_of
from divco_tf.runs import checks, loop
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import ModelDir, claim_model_dir, load, open_model_dir
from divco_tf.runs.options import Options
from divco_tf.runs.plan import plan
from divco_tf.runs.records import experiment_json
from divco_tf.runs.warm_start import WarmStart
from divco_tf.training.optim.optimizer import OptimizerConfig
from tests.data.images import image_folder
from tests.runs import runs
from tests.runs.test_experiment import DIGITS, refusal
from tests.tiny import TinySpec, one_line, shipped_backbones


def parts(kind: type) -> dict[type, None]:
    """A dataclass and all that its fields hold, however deep."""
    found = {kind: None}
    for hint in typing.get_type_hints(kind).values():
        for inner in experiment_json._dataclasses_in(hint):
            found |= parts(inner)
    return found


def made(kind: type, **values):
    """One of a kind whose other fields are as they are by default."""
    needed = {"name": "keras.layers.RandomBrightness", "model_dir": "elsewhere"}
    names = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    if kind is Experiment:
        return runs.experiment(**values)
    return kind(**{**{name: needed[name] for name in names & set(needed)}, **values})


FIELDS = [
    pytest.param(kind, field.name, id=f"{kind.__name__}.{field.name}")
    for kind in (parts(Experiment) | parts(Options))
    for field in dataclasses.fields(kind)
]
ANY_NUMBER = {"Experiment.seed", "LearningRate.htd_lower"}
"""Every whole number is one, below 0 too."""


def kinds_of(hint) -> set:
    """The types that a hint names, outside of what tuples and mappings hold."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(kinds_of, typing.get_args(hint)))
    return {origin or hint}


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_value_of_another_type_is_refused_in_every_field(kind, name):
    fits = kinds_of(typing.get_type_hints(kind)[name])
    wrong = [object(), b"bytes", 1j]
    wrong += [] if str in fits or name == "augment" else ["True", "1"]  # one augmentation is named without a list
    wrong += [] if fits & {int, float} else [1]
    wrong += [] if float in fits else [1.5]
    wrong += [] if bool in fits else [True]
    wrong += [] if types.NoneType in fits else [None]
    wrong += [] if tuple in fits else [[1, 2]]
    for value in wrong:
        with pytest.raises(InputError) as caught:
            made(kind, **{name: value})
        assert one_line(caught.value, says=f"{kind.__name__}.{name} has another type"), value


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_numbers_out_of_range_are_refused_in_every_field(kind, name):
    hint = typing.get_type_hints(kind)[name]
    of_numbers = {int, float} & ({hint, *typing.get_args(hint)})
    values = [-(10**9)] * bool(of_numbers) + [math.nan, math.inf, -math.inf, 10**400] * (float in of_numbers)
    pairs = typing.get_origin(hint) is tuple and not isinstance(typing.get_args(hint)[-1], type(...))
    for value in values:
        given = (value,) * len(typing.get_args(hint)) if pairs else value
        try:
            made(kind, **{name: given})
        except InputError as error:
            assert one_line(error, says="")
            continue
        assert value == -(10**9) and f"{kind.__name__}.{name}" in ANY_NUMBER


@pytest.mark.parametrize("name", ["tiny", *sorted({backbone_of(entry.spec).name for entry in shipped_backbones()})])
def test_overrides_are_of_the_types_that_the_spec_says(name):
    spec = BACKBONES.get(name).spec
    values = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    spec_json.check_overrides(name, values)
    for field in values:
        told = refusal(spec_json.check_overrides, name, {field: object()})
        assert f"overrides of {type(spec).__name__}.{field} has another type" in told


def test_a_text_is_no_width_and_no_truth():
    for changes in ({"width": "8"}, {"norm": "False"}, {"dropout": None}):
        assert "overrides of TinySpec" in refusal(runs.experiment, overrides=changes)


@pytest.mark.parametrize("held_out", [1e-9, 0.9999])
def test_a_share_that_leaves_a_split_empty_is_refused(tmp_path, held_out):
    (problem,) = plan(runs.experiment(held_out=held_out), model_dir=tmp_path / "run").problems
    assert "too few images for split" in problem.text
    assert "too few images for split" in refusal(runs.run, tmp_path / "run", runs.experiment(held_out=held_out))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"synchronised_norm": True}, {"remat": True}, "Replicas cannot meet"),
        ({"synchronised_norm": True}, {"jit": "on"}, "Replicas cannot meet"),
        ({"synchronised_norm": True}, {"branches_in_turn": True}, "Replicas cannot meet"),
        ({"optimizer": OptimizerConfig(clipnorm=1.0)}, {"strategy": "branch_parallel"}, "clipnorm=1.0"),
        ({"batch_size": 255}, {"micro_batches": 2}, "a multiple of 2"),
        ({"mix_block": 100, "mixup_alpha": 0.2}, {}, "Blocks of mixing"),
        ({"views": "imagenet+nothing"}, {}, "nothing"),
        ({"batch_operations": ("nothing",)}, {}, "nothing"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused_alike(tmp_path, changes, options, says):
    described, options = runs.experiment(**changes), Options(**options)
    told = refusal(plan, described, model_dir=tmp_path / "run", options=options)
    assert says in told
    assert told == refusal(loop.train, described, model_dir=tmp_path / "run", options=options, report=lambda line: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong", [{"extend": "False"}, {"extend": 1}, {"options": {"jit": "on"}}, {"experiment": "digits"}], ids=str
)
def test_arguments_of_another_type_are_refused_alike(tmp_path, wrong):
    arguments = {"experiment": runs.experiment(), "model_dir": tmp_path / "run", **wrong}
    told = refusal(plan, **arguments)
    assert f"{next(iter(wrong))} has another type" in told and told == refusal(loop.train, **arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["", "gs://bucket/run", "~nobody_of_this_name/run", 300 * "x"])
def test_a_model_dir_that_is_none_is_refused_alike(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    told = {refusal(plan, runs.experiment(), model_dir=place), refusal(runs.run, place), refusal(open_model_dir, place)}
    assert len(told) == 1 and not list(tmp_path.iterdir())


def test_several_workers_under_a_strategy_that_ignores_them_are_refused(tmp_path, monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    told = refusal(plan, runs.experiment(), model_dir=tmp_path / "run")
    assert "names 2 workers" in told and told == refusal(runs.run, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}}))
    assert plan(runs.experiment(), model_dir=tmp_path / "run").problems == ()


# What lies in model_dir.


def unopened(monkeypatch) -> None:
    monkeypatch.setattr(Experiment, "open_splits", lambda *_, **__: pytest.fail("the data were read"))


def test_a_model_dir_of_another_experiment_is_refused_before_data_are_read(tmp_path, monkeypatch):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    unopened(monkeypatch)
    assert "seed 3 (there 0)" in refusal(runs.run, tmp_path, runs.experiment(seed=3))


def test_a_warm_start_from_nowhere_is_refused_before_data_are_read(tmp_path, monkeypatch):
    unopened(monkeypatch)
    described = runs.experiment(warm_start=WarmStart(str(tmp_path / "absent")))
    assert "No run lies there" in refusal(runs.run, tmp_path / "run", described)
    assert "not on this computer" in refusal(
        runs.run, tmp_path / "run", runs.experiment(warm_start=WarmStart("gs://bucket/run"))
    )


def test_a_test_image_that_cannot_be_read_is_told_before_training_whatever_happens_to_training_images(tmp_path):
    folder = image_folder(tmp_path / "images", images=10)
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=4)
    test = described.open("test", data_dir=str(folder))
    bad = pathlib.Path(test.name_of(len(test) - 1))
    bad.write_bytes(bad.read_bytes()[:100])
    how = {"model_dir": tmp_path / "run", "data_dir": str(folder), "options": Options(on_error="skip")}
    (problem,) = plan(described, **how).problems
    assert str(bad) in problem.text and problem.text == refusal(loop.train, described, report=lambda _: None, **how)
    assert not (tmp_path / "run").exists()


def test_a_second_training_in_one_model_dir_is_refused_and_told_by_the_plan(tmp_path, monkeypatch):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    with files.FolderLock(tmp_path) as first:
        first.acquire("model_dir", report=pytest.fail)
        told = refusal(runs.run, tmp_path)
        assert "model_dir is in use" in told and str(tmp_path) in told and "by process " in told
        assert [line.text for line in plan(runs.experiment(), model_dir=tmp_path).problems] == [told]
        assert open_model_dir(tmp_path).experiment.seed == 0  # reading goes on
    assert plan(runs.experiment(), model_dir=tmp_path).problems == ()


@pytest.mark.parametrize("new", [True, False])
def test_a_model_dir_is_locked_from_before_its_record_until_the_end(tmp_path, new):
    model_dir, held, lines = tmp_path / "run", [], []
    if not new:
        claim_model_dir(model_dir, runs.experiment(epochs=1), DIGITS)

    def look(line: str) -> None:
        lines.append(line)
        if (model_dir / experiment_json.RECORD).exists():  # kernels that are not in the cache are told of before
            held.append(files.FolderLock(model_dir).holder() is not None)

    runs.run(model_dir, runs.experiment(epochs=1), report=look)
    assert held and all(held) and not [line for line in lines if "lock" in line]
    assert files.FolderLock(model_dir).holder() is None


def test_two_that_begin_at_once_do_not_both_train(tmp_path, monkeypatch):
    with files.FolderLock(tmp_path) as first:  # which has not written its record yet
        first.acquire("model_dir", report=pytest.fail)
        assert "model_dir is in use" in refusal(runs.run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_run_does_not_go_on_with_classes_of_other_names(tmp_path):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    renamed = ArraySource(DIGITS.images, DIGITS.labels, ("zero", *DIGITS.class_names[1:]))
    assert "classes are not the run's" in refusal(claim_model_dir, tmp_path, runs.experiment(), renamed)


# experiment.json and metrics.json.


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cut off, or no JSON"),
        ('{"identity": {"backb', "cut off, or no JSON"),
        ("[1, 2]", "is not the record of a run"),
        ("{}", "is not the record of a run"),
        ('{"identity": [], "class_names": []}', "is not the record of a run"),
        ('{"identity": {}, "class_names": [1]}', "is not the record of a run"),
        ('{"identity": {}, "class_names": ["a"]}', "experiment.json is not the record of a run ("),
        ('{"identity": {"backbone": "tiny"}, "class_names": ["a"]}', "experiment.json is not the record of a run ("),
        (b"\xff\xfe\x00", "cut off, or no JSON"),
    ],
    ids=str,
)
def test_a_damaged_or_foreign_record_is_one_line(tmp_path, content, says):
    (tmp_path / "experiment.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (open_model_dir, load, runs.run):
        assert says in refusal(read, tmp_path)
    assert plan(runs.experiment(), model_dir=tmp_path).problems[0].topic == "model_dir"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"new_field": 1}, "Received: new_field"),
        ({"seed": "3"}, "Experiment.seed has another type"),
        ({"cotraining": {"loss": "js", "strength": 1}}, "CoTraining has no such field here"),
        ({"optimizer": 3}, "Experiment.optimizer has another type"),
        ({"backbone": "gone"}, "gone"),
        ({"overrides": {"gone": 1}}, "gone"),
    ],
    ids=str,
)
def test_a_record_of_another_release_names_what_is_not_known(tmp_path, change, says):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    path = tmp_path / "experiment.json"
    content = json.loads(path.read_text())
    content["identity"].update(change)
    path.write_text(json.dumps(content))
    told = refusal(open_model_dir, tmp_path)
    assert says in told and str(tmp_path) in told


def test_a_run_of_0_1_0_without_a_co_training_loss_had_the_default(tmp_path):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    path = tmp_path / "experiment.json"
    content = json.loads(path.read_text())
    content["identity"]["cotraining"] = None
    path.write_text(json.dumps(content))
    assert open_model_dir(tmp_path).experiment.cotraining == Experiment(backbone="tiny", dataset="digits").cotraining


@pytest.mark.parametrize("content", ["", "[{", "{}", "[3]", '[{"step": "1"}]', '[{"step": 1, "accuracy": 1.0}]'])
def test_damaged_metrics_are_one_line(tmp_path, content):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(InputError) as caught:
        _ = open_model_dir(tmp_path).records
    assert one_line(caught.value, says=f"Received: {tmp_path / 'metrics.json'}")
    assert "metrics.json is not the evaluations of a run" in refusal(runs.run, tmp_path)


def test_a_default_that_has_changed_in_the_backbones_table_is_named_and_old_weights_keep_their_network(
    tmp_path, monkeypatch
):
    described = runs.experiment(overrides={})
    run = claim_model_dir(tmp_path, described, DIGITS)
    stack = described.build(10)
    run.checkpoints.save(1, {"stack": stack.variables})
    entry = BACKBONES.get("tiny")
    changed = dataclasses.replace(entry, spec=TinySpec(width=16, dropout=0.5))
    monkeypatch.setattr(BACKBONES, "get", lambda name: changed if name == "tiny" else entry)
    told = refusal(runs.run, tmp_path, described)
    assert "dropout 0.25 (there 0.0)" in told and "width 8 (there 4)" in told
    assert [line.text for line in plan(described, model_dir=tmp_path).problems] == [told]
    assert isinstance(open_model_dir(tmp_path), ModelDir) and load(tmp_path).spec == stack.spec


def test_lists_and_tuples_of_a_spec_come_back(tmp_path):
    described = Experiment(backbone="resnet50", dataset="digits", overrides={"blocks": [1, 1, 1, 1]})
    assert described.overrides == {"blocks": (1, 1, 1, 1)}
    claim_model_dir(tmp_path, described, DIGITS)
    assert open_model_dir(tmp_path).experiment.overrides == described.overrides


# What bears on a result.


def test_a_run_that_goes_on_otherwise_says_so_once(tmp_path):
    lines: list[str] = []
    otherwise = {"micro_batches": 2, "evaluate_every": 2}
    held = runs.experiment(held_out=0.2, batch_size=128, epochs=3, cotraining=runs.CoTraining())
    with pytest.raises(KeyboardInterrupt):
        runs.run(tmp_path, held, threads=1, report=lambda line: interrupt(line, "epoch 1"))
    with pytest.raises(KeyboardInterrupt):
        runs.run(tmp_path, held, **otherwise, report=lambda line: interrupt(line, "epoch 2", lines))
    said = [line for line in lines if "goes on otherwise" in line]
    assert len(said) == 1
    assert "micro_batches 2 (there 1)" in said[0] and "evaluate_every 2 (there 1)" in said[0]
    assert "replicas" not in said[0]
    lines.clear()
    runs.run(tmp_path, held, **otherwise, report=lines.append)
    assert not [line for line in lines if "otherwise" in line]


def interrupt(line: str, at: str, lines: list[str] | None = None) -> None:
    if lines is not None:
        lines.append(line)
    if line.startswith(at):
        raise KeyboardInterrupt


def test_what_a_run_was_trained_with_stays_on_record_when_it_is_finished(tmp_path):
    runs.run(tmp_path, runs.experiment(epochs=1))
    before = (tmp_path / "experiment.json").read_text()
    assert json.loads(before)["computed"] == {"micro_batches": 1, "replicas": 1, "on_error": "raise"}
    assert json.loads(before)["order"] == ORDER
    runs.run(tmp_path, runs.experiment(epochs=1), micro_batches=4)
    assert (tmp_path / "experiment.json").read_text() == before


def test_other_workers_of_a_job_are_not_kept_out_by_the_first_ones_lock(tmp_path):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    with files.FolderLock(tmp_path) as first:
        first.acquire("model_dir", report=pytest.fail)
        assert checks.check_places(runs.experiment(), tmp_path, extend=False, writes=False)
        assert "is in use" in refusal(checks.check_places, runs.experiment(), tmp_path, extend=False, writes=True)


@pytest.mark.parametrize("release", [{}, {"computed": {"micro_batches": 1}, "order": 1}])
def test_a_run_whose_images_came_in_another_order_says_so(release):
    (said,) = experiment_json.told_of_another_way(release, computed={"micro_batches": 1}, order=2)
    assert "the order of its images" in said
    assert not list(
        experiment_json.told_of_another_way({**release, "order": 2}, computed={"micro_batches": 1}, order=2)
    )
