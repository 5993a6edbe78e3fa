"""What keeps an experiment from being trained is one line, from the plan as from training, and nothing is written."""

import dataclasses
import json
import math
import pathlib
import types
import typing

import pytest

from divco_tf import files
from divco_tf.data.sources import ArraySource
from divco_tf.errors import InputError
from divco_tf.runs import checks, loop
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import claim_model_dir, open_model_dir
from divco_tf.runs.options import Options
from divco_tf.runs.plan import plan
from divco_tf.runs.records import experiment_json
from divco_tf.runs.warm_start import WarmStart
from divco_tf.training.optim.optimizer import OptimizerConfig
from tests.data.images import image_folder
from tests.runs import runs
from tests.runs.refusals import DIGITS, refusal
from tests.tiny import one_line


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


def test_other_workers_of_a_job_are_not_kept_out_by_the_first_ones_lock(tmp_path):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    with files.FolderLock(tmp_path) as first:
        first.acquire("model_dir", report=pytest.fail)
        assert checks.check_places(runs.experiment(), tmp_path, extend=False, writes=False)
        assert "is in use" in refusal(checks.check_places, runs.experiment(), tmp_path, extend=False, writes=True)
