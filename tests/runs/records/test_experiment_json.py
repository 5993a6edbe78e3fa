"""experiment.json of a model_dir: damaged, of another release, of a run that went on otherwise."""

import dataclasses
import json

import pytest

from divco_tf.data.order import ORDER
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import ModelDir, claim_model_dir, load, open_model_dir
from divco_tf.runs.plan import plan
from divco_tf.runs.records import experiment_json
from tests.runs import runs
from tests.runs.refusals import DIGITS, refusal
from tests.tiny import TinySpec


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


def test_what_a_run_was_trained_with_stays_on_record_when_it_is_finished(tmp_path):
    runs.run(tmp_path, runs.experiment(epochs=1))
    before = (tmp_path / "experiment.json").read_text()
    assert json.loads(before)["computed"] == {"micro_batches": 1, "replicas": 1, "on_error": "raise"}
    assert json.loads(before)["order"] == ORDER
    runs.run(tmp_path, runs.experiment(epochs=1), micro_batches=4)
    assert (tmp_path / "experiment.json").read_text() == before


@pytest.mark.parametrize("release", [{}, {"computed": {"micro_batches": 1}, "order": 1}])
def test_a_run_whose_images_came_in_another_order_says_so(release):
    (said,) = experiment_json.told_of_another_way(release, computed={"micro_batches": 1}, order=2)
    assert "the order of its images" in said
    assert not list(
        experiment_json.told_of_another_way({**release, "order": 2}, computed={"micro_batches": 1}, order=2)
    )


def interrupt(line: str, at: str, lines: list[str] | None = None) -> None:
    if lines is not None:
        lines.append(line)
    if line.startswith(at):
        raise KeyboardInterrupt
