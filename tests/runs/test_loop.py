import dataclasses
import json

import gin
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from divco_tf.data.pipeline import ViewPipeline
from divco_tf.data.sources import open_source
from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.models.branch_stack import BranchStack
from divco_tf.runs import hooks
from divco_tf.runs.loop import train
from divco_tf.runs.model_dir import load
from divco_tf.runs.options import Options
from divco_tf.runs.progress import StepTimes
from divco_tf.runs.records.metrics_json import Records
from divco_tf.runtime.interrupts import Interrupts
from divco_tf.tools.shared import configs
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.learning_rate import LearningRate
from tests import tiny
from tests.data.images import image_folder
from tests.runs import runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs, and its evaluation; to be read only."""
    model_dir = tmp_path_factory.mktemp("finished")
    return model_dir, runs.run(model_dir, log_every=2)


def refusal(function, *arguments, **named) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **named)
    assert tiny.one_line(caught.value, says="")
    return str(caught.value)


def scalars(model_dir, writer: str) -> dict[str, dict[int, float]]:
    """TensorBoard's values by name and step; pictures are left out."""
    events = EventAccumulator(str(model_dir / "tensorboard" / writer), size_guidance={"tensors": 0})
    events.Reload()
    return {
        name: {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(name)}
        for name in events.Tags()["tensors"]
        if name not in ("views", "experiment", "config.gin")
    }


# What is not the experiment's does not bear on the result.


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 3},
        {"threads": None},
        {"log_every": 1, "progress_seconds": 0.0},
        {"checkpoint_every": 3, "keep_checkpoints": 1},
        {"checkpoint_every": None, "evaluate_every": 0},
        {"eval_batch_size": 50},
    ],
    ids=str,
)
def test_weights_do_not_depend_on_threads_logs_checkpoints_and_evaluations(finished, tmp_path, options):
    evaluation = runs.run(tmp_path, **options)
    for one, other in zip(runs.final_weights(tmp_path), runs.final_weights(finished[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert evaluation.accuracy == finished[1].accuracy


SHORT = {"epochs": 1, "batch_size": 478, "overrides": {}, "learning_rate": LearningRate(learning_rate=1e-3)}
"""Two or three steps of digits' 1,410 training images, of even shares."""


@pytest.mark.parametrize("jit", ["off", "on"])
def test_two_replicas_are_one_device_with_two_micro_batches(tmp_path, jit):
    described = runs.experiment(**SHORT)
    mirrored = runs.run(tmp_path / "mirrored", described, strategy="mirrored", jit=jit)
    one = runs.run(tmp_path / "one", described, strategy="one_device", micro_batches=2)
    ours, theirs = runs.final_weights(tmp_path / "mirrored"), runs.final_weights(tmp_path / "one")
    assert tiny.largest_difference(ours, theirs) < 1e-5
    initial = described.build(10)
    assert tiny.largest_difference(ours, tiny.values(initial.variables)) > 1e-3
    assert mirrored.accuracy == pytest.approx(one.accuracy, abs=2 / one.images)
    assert mirrored.negative_log_likelihood == pytest.approx(one.negative_log_likelihood, abs=1e-4)


def test_a_run_goes_on_elsewhere_and_otherwise(tmp_path):
    described = runs.experiment(held_out=0.2, overrides={}, learning_rate=LearningRate(learning_rate=1e-3))
    with pytest.raises(KeyboardInterrupt):
        runs.run(tmp_path, described, report=interrupt, strategy="one_device")
    lines = []
    runs.run(
        tmp_path,
        described,
        **{"strategy": "mirrored", "jit": "on", "micro_batches": 2, "threads": 2, "log_every": 3},
        checkpoint_every=1,
        data_dir="elsewhere",
        report=lines.append,
    )
    assert lines[0].startswith("going on from step 4 of 8 (")
    assert "goes on otherwise" in lines[1] and "micro_batches 2 (there 1), replicas 2 (there 1)" in lines[1]
    assert [record["step"] for record in runs.records(tmp_path)] == [4, 8, 8]


def interrupt(line):
    if line.startswith("epoch "):
        raise KeyboardInterrupt


# The same command again.


def test_a_finished_run_answers_and_does_nothing(finished, tmp_path, monkeypatch):
    model_dir, evaluation = finished
    before = {path: path.stat().st_mtime_ns for path in model_dir.rglob("*") if "checkpoints" in path.parts}
    metrics = (model_dir / "metrics.json").read_text()
    monkeypatch.setattr(BranchStack, "run", lambda *_, **__: pytest.fail("the network was run"))
    lines = []
    assert runs.run(model_dir, report=lines.append) == evaluation
    assert len(lines) == 1 and lines[0].startswith("finished already: step 10 of 10 (")
    assert (model_dir / "metrics.json").read_text() == metrics
    assert before == {path: path.stat().st_mtime_ns for path in model_dir.rglob("*") if "checkpoints" in path.parts}


def test_a_finished_run_is_extended_when_asked(tmp_path):
    runs.run(tmp_path, runs.experiment(epochs=1))
    longer = runs.experiment(epochs=2)
    assert "--extend" in refusal(runs.run, tmp_path, longer)
    runs.run(tmp_path, longer, extend=True)
    assert [record["step"] for record in runs.records(tmp_path)] == [5, 10]
    assert "epochs 1 (there 2)" in refusal(runs.run, tmp_path, runs.experiment(epochs=1), extend=True)


def test_a_run_in_steps_ends_there_and_is_extended_by_steps(tmp_path):
    described = runs.experiment(epochs=None, steps=7, train_images=600)
    runs.run(tmp_path, described)
    assert runs.records(tmp_path)[-1]["step"] == 7
    longer = dataclasses.replace(described, steps=9)
    with pytest.raises(InputError, match="pass --extend to train it for more steps"):
        runs.run(tmp_path, longer)
    runs.run(tmp_path, longer, extend=True)
    assert runs.records(tmp_path)[-1]["step"] == 9


def test_without_test_images_the_last_weights_are_evaluated_on_held_out_ones(tmp_path):
    evaluation = runs.run(tmp_path, runs.experiment(held_out=0.2), evaluate_test=False)
    assert evaluation.split == "held_out" and {record["split"] for record in runs.records(tmp_path)} == {"held_out"}
    with pytest.raises(InputError, match="Received: evaluate_test=False, held_out=0; held_out=0.1 would work"):
        runs.run(tmp_path / "other", runs.experiment(), evaluate_test=False)


def test_branches_apart_are_networks_that_were_trained_alone(tmp_path):
    """Without a co-training loss no gradient of a branch depends on another: an independent ensemble."""
    both = {"cotraining": CoTraining(loss="none"), "mixup_alpha": 0.0, "same_initialisation": True, "epochs": 1}
    runs.run(tmp_path / "apart", runs.experiment(**both, overrides={}, identical_views=True))
    runs.run(tmp_path / "alone", runs.experiment(**both, overrides={"width": 4}, split_factor=1))
    apart = load(tmp_path / "apart").stacked_values()
    for name, value in load(tmp_path / "alone").stacked_values().items():
        for branch in range(2):
            np.testing.assert_allclose(apart[name][branch], value[0], atol=2e-4, err_msg=name)


def test_a_refused_run_leaves_the_model_dir_as_it_was(finished):
    model_dir, _ = finished
    before = {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}
    for changes in ({"seed": 1}, {"batch_size": 2000}, {"epochs": 1}):
        refusal(runs.run, model_dir, runs.experiment(**changes), operative_config="another")
    assert before == {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}


# What a run leaves.


def test_tensorboard_has_every_metric_and_schedule(finished):
    model_dir, evaluation = finished
    values = scalars(model_dir, "train")
    assert set(values) == {
        *("loss", "cross_entropy", "cotraining", "accuracy", "branch0_accuracy", "branch1_accuracy"),
        *("branch_cross_entropy", "learning_rate", "cotraining_weight", "data_wait", "skipped_steps"),
    }
    assert all(sorted(by_step) == [2, 4, 6, 8, 10] for by_step in values.values())
    for step in (2, 10):
        parts = values["cross_entropy"][step] + values["cotraining"][step]
        assert values["loss"][step] == pytest.approx(parts, rel=1e-5)
    described = runs.experiment()
    rate = described.learning_rate.resolve(epochs=2, steps_per_epoch=runs.STEPS_PER_EPOCH)
    for step, value in values["learning_rate"].items():
        assert value == pytest.approx(float(rate(step)), rel=1e-6)
    assert values["cotraining_weight"] == pytest.approx({2: 0.005, 4: 0.005, 6: 0.5, 8: 0.5, 10: 0.5})
    for step, value in values["branch_cross_entropy"].items():
        assert value == pytest.approx(values["cross_entropy"][step] / 2)
    tests = scalars(model_dir, "test")
    parts = {"accuracy", "negative_log_likelihood", "calibration_error", "branch0_accuracy", "branch1_accuracy"}
    assert set(tests) == parts and set(values) & parts == {"accuracy", "branch0_accuracy", "branch1_accuracy"}
    assert tests["accuracy"][10] == pytest.approx(evaluation.accuracy)


def test_a_short_run_has_a_point_every_step_and_a_long_one_a_thousand(tmp_path, monkeypatch):
    runs.run(tmp_path / "short")
    assert sorted(scalars(tmp_path / "short", "train")["loss"]) == list(range(1, 11))
    monkeypatch.setattr(hooks, "POINTS", 4)
    runs.run(tmp_path / "long")
    assert sorted(scalars(tmp_path / "long", "train")["loss"]) == [3, 6, 9, 10]


def test_tensorboard_has_the_config_as_text(tmp_path):
    runs.run(tmp_path, operative_config="experiment.Experiment.epochs = 2\n")
    texts = {}
    for path in (tmp_path / "tensorboard" / "train").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "text":
                    texts[value.tag] = value.tensor.string_val[0].decode()
    assert texts["config.gin"] == "    experiment.Experiment.epochs = 2\n"
    assert "| optimizer.weight_decay | `" in texts["experiment"]


def test_who_watches_sees_the_end_and_no_line_of_a_step_is_reported(tmp_path, monkeypatch):
    lines, seen = [], []
    monkeypatch.setattr(hooks, "WATCHED_SECONDS", 0.0)
    runs.run(tmp_path, report=lines.append, watch=seen.append, log_every=4)
    assert [standing.step for standing in seen] == list(range(1, 11)) and not seen[-1].seconds_left
    assert not any(line.startswith("step ") for line in lines)
    assert any(line.startswith("loss: the sum of 2 branches' cross entropies") for line in lines)


def test_logged_means_are_over_the_steps_since_the_last_log(tmp_path):
    described = runs.experiment(epochs=1, mixup_alpha=0.0, cotraining=CoTraining(weight=0.0))
    runs.run(tmp_path / "each", described, log_every=1)
    runs.run(tmp_path / "all", described, log_every=5)
    each, whole = (scalars(tmp_path / name, "train")["loss"] for name in ("each", "all"))
    assert sorted(each) == [1, 2, 3, 4, 5] and sorted(whole) == [5]
    assert whole[5] == pytest.approx(np.mean(list(each.values())), rel=1e-5)


def test_metrics_json_has_a_record_an_evaluation(finished):
    model_dir, evaluation = finished
    records = json.loads((model_dir / "metrics.json").read_text())
    assert [(record["step"], record["epoch"], record["split"]) for record in records] == [
        (5, 1, "test"),
        (10, 2, "test"),
    ]
    fields = {"step", "epoch", *(field.name for field in dataclasses.fields(evaluation))}
    assert all(set(record) == fields for record in records)
    assert records[-1] == {"step": 10, "epoch": 2.0, **json.loads(json.dumps(dataclasses.asdict(evaluation)))}
    assert evaluation.images == 387 and evaluation.seconds_per_step > 0 and evaluation.weights == "last step 10"


def test_held_out_images_choose_and_test_images_are_used_once(tmp_path):
    described = runs.experiment(held_out=0.2, epochs=3)
    evaluation = runs.run(tmp_path, described)
    splits = [(record["step"], record["split"]) for record in runs.records(tmp_path)]
    assert splits == [(4, "held_out"), (8, "held_out"), (12, "held_out"), (12, "test")]
    assert evaluation.split == "test" and evaluation.images == 387
    held_out = {record["step"]: record["accuracy"] for record in runs.records(tmp_path)[:3]}
    assert runs.best(tmp_path)["accuracy"] == max(held_out.values())
    best = load(tmp_path, weights="best")
    assert best.weights_from == f"{tmp_path} best step {runs.best(tmp_path)['step']}"


def test_the_operative_config_describes_the_run_again(tmp_path, monkeypatch):
    gin.clear_config()
    bindings = [
        *("experiment.Experiment.epochs=1", 'experiment.Experiment.backbone="tiny"'),
        *("learning_rate.LearningRate.warmup_epochs=0", "experiment.Experiment.overrides={'dropout': 0.25}"),
        *("experiment.Experiment.batch_size=256", "options.Options.threads=1"),
    ]
    configs.parse_config("digits/wide_resnet10_2_split4", bindings)
    described, options = configs.experiment(), configs.options()
    train(
        described,
        model_dir=tmp_path,
        options=options,
        operative_config=configs.operative_config(),
        report=lambda line: None,
    )
    monkeypatch.chdir(tmp_path)
    configs.parse_config(str(tmp_path / "config.gin"))
    assert (configs.experiment(), configs.options()) == (described, options)
    gin.clear_config()


def test_progress_tells_steps_losses_speed_and_time_left(tmp_path):
    lines = []
    runs.run(tmp_path, report=lines.append, progress_seconds=0.0)
    steps = [line for line in lines if line.startswith("step ")]
    assert len(steps) == 10 and steps[0].startswith("step 1/10  epoch 0.20  loss ")
    for line in steps:
        assert all(word in line for word in ("cotraining", "accuracy", "steps/s"))
        minutes, seconds = line.split("  ")[-1].removesuffix(" left").split(":")
        assert minutes.isdecimal() and len(seconds) == 2 and int(seconds) < 60
    assert steps[-1].endswith("0:00 left")
    assert any(line.startswith("epoch 2: test accuracy 0.") for line in lines)


# Steps that are not finite.


def spoil(patch: pytest.MonkeyPatch, *steps: int) -> None:
    """Puts a NaN into the views of `steps`, counted from 0."""
    views_at = ViewPipeline.views_at

    def spoilt(self, step):
        views, labels = views_at(self, step)
        if step in steps:
            views = views.copy()
            views[3, 0, 0, 0, 0] = np.nan
        return views, labels

    patch.setattr(ViewPipeline, "views_at", spoilt)


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
@pytest.mark.parametrize("step", [3, 4, 9])  # between saves, before one, the last
def test_a_nan_stops_the_run_and_the_last_good_checkpoint_goes_on(finished, tmp_path, monkeypatch, strategy, step):
    with monkeypatch.context() as patch:
        spoil(patch, step)
        with pytest.raises(RunError) as caught:
            runs.run(tmp_path, strategy=strategy)
    assert tiny.one_line(caught.value, says="not finite")
    last = tmp_path / "checkpoints" / f"{step // 2 * 2:09d}"
    assert str(last) in str(caught.value) and "max_bad_steps=0" in str(caught.value)
    runs.assert_nothing_is_half_written(tmp_path)
    assert all(np.all(np.isfinite(value)) for value in runs.final_weights(tmp_path))
    runs.run(tmp_path)
    if strategy == "one_device":
        runs.assert_same_run(tmp_path, finished[0])


def test_so_many_bad_steps_in_a_row_pass_and_change_nothing(tmp_path, monkeypatch):
    spoil(monkeypatch, 2, 3, 6, 7)
    runs.run(tmp_path / "two", max_bad_steps=2, log_every=1)
    assert all(np.all(np.isfinite(value)) for value in runs.final_weights(tmp_path / "two"))
    shown = scalars(tmp_path / "two", "train")
    assert [step for step, loss in shown["loss"].items() if not np.isfinite(loss)] == [3, 4, 7, 8]
    assert shown["skipped_steps"][runs.STEPS_PER_EPOCH * 2] == 4
    with pytest.raises(RunError, match="Received: 2 such steps in a row"):
        runs.run(tmp_path / "one", max_bad_steps=1)


def test_a_rate_that_is_far_too_high_ends_in_one_line(tmp_path):
    wild = runs.experiment(learning_rate=LearningRate(rule="constant", learning_rate=1e30), backbone="tiny_no_norm")
    with pytest.raises(RunError) as caught:
        runs.run(tmp_path, wild, checkpoint_every=1)
    assert tiny.one_line(caught.value, says="a lower learning rate may help")


def test_a_termination_that_could_not_be_written_says_so(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Records, "write", fail)
    ended, done = [], StepTimes.done
    monkeypatch.setattr(StepTimes, "done", lambda self: (ended.append(self), done(self)))
    monkeypatch.setattr(Interrupts, "terminated", property(lambda self: bool(ended)))
    lines = []
    with pytest.raises(Preempted, match=r"^SIGTERM came; no checkpoint of step 1 could be written\.$"):
        runs.run(tmp_path, report=lines.append)
    assert lines[-1] == "no checkpoint of step 1: metrics.json cannot be written (No space left on device)"


# Bad input.


@pytest.mark.parametrize(
    "option",
    [
        *({"micro_batches": 0}, {"keep_checkpoints": 0}, {"log_every": 0}, {"eval_batch_size": 0}),
        *({"checkpoint_every": 0}, {"evaluate_every": -1}, {"max_bad_steps": -1}, {"threads": 0}),
        *({"micro_batches": True}, {"log_every": 2.0}, {"micro_batches": None}),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(option):
    assert next(iter(option)) in refusal(Options, **option)


@pytest.mark.parametrize(
    ("changes", "arguments", "says"),
    [
        ({"batch_size": 255}, {"micro_batches": 2}, "a multiple of 2"),
        ({"batch_size": 254}, {"micro_batches": 2, "strategy": "mirrored"}, "a multiple of 4"),
        ({"batch_size": 2000}, {}, "1410 or less"),
        ({"backbone": "tinny"}, {}, "tiny"),
        ({"ensembling": "mean"}, {}, "mean_logits"),
        ({"precision": "float8"}, {}, "mixed_float16"),
        ({"views": "flip"}, {}, "crop_flip"),
        ({"held_out": 1.0}, {}, "held_out is out of range"),
        ({"mixup_alpha": -1.0}, {}, "alpha"),
        ({"label_smoothing": 1.0}, {}, "label_smoothing is out of range"),
        ({"overrides": {"depht": 3}}, {}, "depht"),
        ({"learning_rate": LearningRate(warmup_epochs=2)}, {}, "warm-up"),
        ({}, {"strategy": "miror"}, "mirrored"),
        ({}, {"jit": "yes"}, "auto, on, off"),
        ({"dataset": "cifar10"}, {"data_dir": "/nowhere"}, "/nowhere"),
        ({"dataset": "cifar10"}, {}, "no data_dir"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, changes, arguments, says):
    assert says in refusal(lambda: runs.run(tmp_path / "run", runs.experiment(**changes), **arguments))
    assert not (tmp_path / "run").exists()


def test_an_unwritable_model_dir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "model_dir cannot be written" in refusal(runs.run, tmp_path / "file" / "run")


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_that_cannot_be_read_is_named(tmp_path, split):
    folder = image_folder(tmp_path / "images")
    source = open_source("image_folder", split, data_dir=str(folder))
    broken = source.root / source.paths[0]
    broken.write_bytes(broken.read_bytes()[:100])
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=8, views="none", epochs=2)
    said = refusal(runs.run, tmp_path / "run", described, data_dir=str(folder))
    assert "cannot be read" in said and str(broken) in said


def test_a_class_folder_that_is_added_while_a_run_goes_on_does_not_matter(tmp_path):
    folder = image_folder(tmp_path / "images", images=20)

    def report(line):
        if line.startswith("views: "):
            image_folder(tmp_path / "more", classes=1)
            (tmp_path / "more" / "class0").rename(folder / "another")

    described = runs.experiment(
        dataset="image_folder", image_size=8, batch_size=8, views="none", epochs=2, held_out=0.2
    )
    evaluation = runs.run(tmp_path / "run", described, data_dir=str(folder), report=report)
    assert evaluation.split == "test" and (folder / "another").is_dir()
    assert {record["split"] for record in runs.records(tmp_path / "run")} == {"held_out", "test"}


def test_skipped_images_are_counted_each_epoch_and_the_run_ends(tmp_path):
    images = image_folder(tmp_path / "images", classes=2, images=20)
    test, train = (open_source("image_folder", split, data_dir=str(images)) for split in ("test", "train"))
    bad = [train.root / path for path in train.paths[::5]]
    broken = test.root / test.paths[-1]
    kept = broken.read_bytes()
    for file in (*bad, broken):
        file.write_bytes(file.read_bytes()[:150])
    lines = []
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=4, epochs=2, views="none")
    arguments = {"data_dir": str(images), "on_error": "skip", "evaluate_every": 0, "report": lines.append}
    said = refusal(runs.run, tmp_path / "run", described, **arguments)
    assert str(broken) in said and not (tmp_path / "run").exists()  # a test image: a result counts every one
    broken.write_bytes(kept)
    runs.run(tmp_path / "run", described, **arguments)
    told = [line for line in lines if "images so far cannot be read and are replaced" in line]
    assert [line.partition(":")[0] for line in told] == ["epoch 1", "epoch 2"]
    assert any(str(file) in told[0] for file in bad)
