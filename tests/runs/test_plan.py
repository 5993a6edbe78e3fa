"""The plan of a run: its numbers are the run's, what is missing is a line, and nothing is written."""

import json
import pathlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.sources.request import in_bytes
from divco_tf.errors import InputError
from divco_tf.runs import loop
from divco_tf.runs.options import Options
from divco_tf.runs.plan import Plan, plan
from divco_tf.runs.warm_start import WarmStart
from divco_tf.runtime import strategy
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.learning_rate import LearningRate
from divco_tf.training.optim.optimizer import OptimizerConfig
from divco_tf.training.warmup import SHORTEST_WARMUP
from tests.data.images import image_folder
from tests.runs import runs
from tests.tiny import one_line


def planned(model_dir: pathlib.Path, described=None, **arguments) -> Plan:
    return plan(described or runs.experiment(), model_dir=model_dir, **arguments)


def told(described: Plan, topic: str) -> str:
    (line,) = [line for line in described.content if line.topic == topic]
    return f"{line.mark}: {line.text}" if line.mark else line.text


def rates(described: Plan) -> dict[int, tuple[float, float]]:
    """The learning rate and the co-training weight by step."""
    pattern = re.compile(r"step ([\d,]+) \(.+\): learning rate (\S+), co-training weight (\S+)")
    found = [pattern.fullmatch(line.text).groups() for line in described.content if line.topic == "rates"]
    return {int(step.replace(",", "")): (float(rate), float(weight)) for step, rate, weight in found}


def tree(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_a_plan_is_of_all_that_bears_on_a_run_and_writes_nothing(tmp_path):
    described = planned(tmp_path / "a" / "run")
    topics = list(dict.fromkeys(line.topic for line in described.content))
    assert topics == ["trains", "devices", "batch", "data", "steps", "rates", "network", "memory", "model_dir", "disk"]
    assert described.problems == () and described.lines()[-1] == f"{'ready:':<12} yes"
    assert all("\n" not in line for line in described.lines())
    assert not list(tmp_path.iterdir())


def test_steps_and_sizes_are_those_of_training(tmp_path):
    described = planned(tmp_path)
    stack = runs.experiment().build(10)
    parameters = sum(variable.numpy().size for variable in stack.trainable_variables)
    assert f"{parameters:,} parameters" in told(described, "network")
    assert f"a branch {parameters // 2:,} and" in told(described, "network")
    assert told(described, "steps").startswith("5 an epoch of 1,410 images (130 left over), 10 in 2 epochs")
    assert told(described, "data") == "1,410 train, 387 test images of 10 classes"


@settings(max_examples=15, deadline=None)
@given(
    epochs=st.integers(1, 400),
    warmup=st.just(0.0) | st.floats(SHORTEST_WARMUP, 3),
    ramp=st.just(0.0) | st.floats(SHORTEST_WARMUP, 500),
    rule=st.sampled_from(["cos", "step", "constant"]),
)
def test_key_points_lie_in_the_run_and_have_its_rates(tmp_path_factory, epochs, warmup, ramp, rule):
    described = runs.experiment(
        epochs=epochs,
        learning_rate=LearningRate(rule=rule, learning_rate=0.3, warmup_epochs=min(warmup, epochs - 0.5)),
        cotraining=CoTraining(warmup_epochs=ramp),
    )
    found = rates(planned(pathlib.Path("/nowhere"), described))
    schedule = described.learning_rate.resolve(epochs=epochs, steps_per_epoch=5)
    assert list(found) == sorted(found) and {0, 5 * epochs // 2, 5 * epochs - 1} <= set(found)
    for step, (rate, weight) in found.items():
        assert 0 <= step < 5 * epochs
        assert rate == pytest.approx(float(schedule(step)), rel=1e-3)
        assert weight == pytest.approx(float(described.cotraining.weight_at(step, steps_per_epoch=5)), rel=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "ema_decay"),
    [
        (OptimizerConfig(), None),
        (OptimizerConfig(momentum=0.0), 0.9),
        (OptimizerConfig("rmsprop_tf", nesterov=True), None),
        (OptimizerConfig("adamw", exclude_from_decay=("^conv",)), 0.9),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_checkpoint_is_as_large_as_planned(tmp_path, optimizer, ema_decay):
    described = runs.experiment(optimizer=optimizer, ema_decay=ema_decay, overrides={"width": 512}, epochs=1)
    before = planned(tmp_path / "run", described)
    runs.run(tmp_path / "run", described, checkpoint_every=5)
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    size = (checkpoint / "state.data-00000-of-00001").stat().st_size
    number, unit = re.search(r"checkpoints of (\S+) (\w+) and", told(before, "disk")).groups()
    assert float(number) * {"kB": 1e3, "MB": 1e6}[unit] == pytest.approx(size, rel=0.01), in_bytes(size)


def test_missing_data_is_a_line_and_the_datasets_facts_stand_in_for_them(tmp_path):
    described = planned(tmp_path, runs.experiment(dataset="cifar10"), data_dir=str(tmp_path / "none"))
    assert told(described, "data").startswith("MISSING: The data_dir does not exist. Received: ")
    assert "50,000 images of 10 classes" in told(described, "data")
    assert told(described, "steps").startswith("195 an epoch of 50,000 images")
    assert [line.topic for line in described.problems] == ["data"]
    assert described.lines()[-1].endswith("no, see data")
    assert rates(described)


def test_of_a_users_images_that_are_missing_nothing_is_made_up(tmp_path):
    described = planned(tmp_path, runs.experiment(dataset="image_folder", image_size=8, batch_size=16))
    assert "16 images of 2 classes, the fewest possible, one batch" in told(described, "data")


def test_a_folder_is_counted_and_a_first_image_that_cannot_be_read_is_named(tmp_path):
    folder = image_folder(tmp_path / "images", images=10)
    experiment = runs.experiment(dataset="image_folder", image_size=8, batch_size=4, held_out=0.2)
    found = planned(tmp_path / "run", experiment, data_dir=str(folder))
    counts = [int(count) for count in re.findall(r"(\d+) (?:train|held-out|test)", told(found, "data"))]
    assert sum(counts) == 30 and len(counts) == 3 and "of 3 classes" in told(found, "data")
    first = pathlib.Path(experiment.open("train", data_dir=str(folder)).name_of(0))
    first.write_bytes(first.read_bytes()[:100])
    bad = told(planned(tmp_path / "run", experiment, data_dir=str(folder)), "data")
    assert bad.startswith("PROBLEM: An image cannot be read") and str(first) in bad


def faulty(tmp_path, split, name):
    """A folder with a fault in the images that are held out or tested on, and what is said of it."""
    root = tmp_path / "images"
    image_folder(root / "train", images=10)
    image_folder(root / "val", images=2)
    image_folder(root / "test", images=2)
    place, says = root / split, "no JPEG"
    if name == "no image":
        (place / "class1" / "notes.jpg").write_text("text")
    elif name == "another class":
        (place / "class1").rename(place / "fox")
        says = f"A class of {split}/ is not in train/"
    elif name == "an empty class":
        (place / "empty").mkdir()
        says = "A class has no images"
    elif name == "a cut image":
        says = "truncated or corrupt"
        (place / "class0" / "0.png").write_bytes((place / "class0" / "0.png").read_bytes()[:300])
    else:
        for part in ("train", "val", "test"):
            (root / part / "class2").rename(root / part / {"latin-1": "caf\udce9", "a line end": "a\u2028b"}[name])
        says = "A class has a name that is no line of UTF-8"
    return root, says


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(
    "name", ["no image", "another class", "an empty class", "a cut image", "latin-1", "a line end"]
)
def test_a_fault_of_any_split_is_told_by_plan_and_before_the_first_step_alike(tmp_path, split, name):
    root, says = faulty(tmp_path, split, name)
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=4, held_out=0.1, views="none")
    for on_error in ("raise", "skip"):
        options = {"data_dir": str(root), "options": Options(on_error=on_error)}
        assert says in told(planned(tmp_path / "run", described, **options), "data")
        with pytest.raises(InputError, match=says):
            loop.train(described, model_dir=tmp_path / "run", report=print, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["model_dir", "cache_dir"])
def test_what_a_run_writes_may_not_lie_among_its_images(tmp_path, place):
    root = image_folder(tmp_path / "images", images=10)
    (tmp_path / "link").symlink_to(root)
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=4, held_out=0.2)
    for path in (root, root / "runs" / "1", tmp_path / "link" / "runs", root / "class0" / "run"):
        places = {"model_dir": tmp_path / "run", "cache_dir": None, place: path}
        options = Options(cache_dir=places["cache_dir"] and str(places["cache_dir"]))
        found = planned(places["model_dir"], described, data_dir=str(root), options=options)
        assert f"{place} lies among the images" in told(found, "data")
    for path in (root / ".runs", tmp_path / "images2"):
        assert "of 3 classes" in told(planned(path, described, data_dir=str(root)), "data")


def test_a_cache_dir_that_cannot_be_made_is_a_problem(tmp_path):
    (tmp_path / "file").touch()
    for cache_dir, mark in ((tmp_path / "file" / "cache", "PROBLEM"), (tmp_path / "new" / "cache", None)):
        found = planned(tmp_path / "run", options=Options(cache_dir=str(cache_dir)))
        assert [line.mark for line in found.content if line.topic == "cache_dir"] == [mark] * bool(mark)


def test_a_folder_beside_the_splits_may_hold_runs(tmp_path):
    image_folder(tmp_path / "train", images=10)
    image_folder(tmp_path / "val", images=2)
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=4)
    assert "of 3 classes" in told(planned(tmp_path / "runs", described, data_dir=str(tmp_path)), "data")
    assert "lies among" in told(planned(tmp_path / "val" / "run", described, data_dir=str(tmp_path)), "data")


def test_what_is_left_out_of_the_data_is_told(tmp_path):
    root = image_folder(tmp_path / "images", images=10)
    (root / "class0" / "gone.jpg").symlink_to("/mnt/not-here")
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=4)
    found = planned(tmp_path / "run", described, data_dir=str(root))
    assert f"data:        left out: links that lead nowhere, {root}/class0/gone.jpg" in found.lines()
    assert found.lines()[-1].endswith("yes")


def test_data_of_other_classes_are_a_problem(tmp_path):
    folder = image_folder(tmp_path / "images", images=10)
    experiment = runs.experiment(dataset="imagenet", image_size=8)
    described = planned(tmp_path / "run", experiment, data_dir=str(folder))
    assert "do not fit the dataset imagenet" in told(described, "data")
    assert "1,281,167 images" in told(described, "steps")


def test_a_run_that_lies_there_goes_on_and_stays_as_it_is(tmp_path):
    runs.run(tmp_path)
    before = tree(tmp_path)
    assert told(planned(tmp_path), "model_dir").endswith("holds this run, which is finished: step 10 of 10")
    other = told(planned(tmp_path, runs.experiment(seed=3)), "model_dir")
    assert other.startswith("PROBLEM: ") and "seed 3 (there 0)" in other
    longer = runs.experiment(epochs=3)
    assert "pass --extend" in told(planned(tmp_path, longer), "model_dir")
    assert told(planned(tmp_path, longer, extend=True), "model_dir").endswith("from step 10 of 15")
    assert tree(tmp_path) == before


def test_damaged_checkpoints_are_told_and_stay_where_they_are(tmp_path):
    runs.run(tmp_path)
    *_, one_before, last = sorted((tmp_path / "checkpoints").iterdir())
    (last / "info.json").write_text("{}")
    described = planned(tmp_path)
    assert str(last) in told(described, "model_dir") and described.problems == ()
    assert told(described, "model_dir").endswith(f"goes on from step {int(one_before.name)} of 10")
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / "info.json").write_text("{}")
    assert told(planned(tmp_path), "model_dir").startswith("PROBLEM: All checkpoints are damaged")


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    assert told(planned(tmp_path / "file" / "run"), "model_dir").startswith("PROBLEM: it cannot be written")


def test_checkpoints_that_do_not_fit_are_a_problem(tmp_path, monkeypatch):
    described = planned(tmp_path, runs.experiment(held_out=0.1))
    assert told(described, "disk").startswith("4 checkpoints of ")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("divco_tf.runs.plan.shutil.disk_usage", lambda path: usage)
    full = planned(tmp_path)
    assert [line.topic for line in full.problems] == ["disk"] and "1.0 kB are free" in told(full, "disk")


def test_workers_are_counted_from_tf_config_and_no_server_starts(tmp_path, monkeypatch):
    options = Options(strategy="multi_worker_mirrored")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    absent = planned(tmp_path, options=options)
    assert told(absent, "devices").startswith("PROBLEM: TF_CONFIG names no workers")
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    described = planned(tmp_path, options=options)
    assert "2 workers of 1 replica" in told(described, "devices")
    assert told(described, "batch").startswith("256 images, 128 a replica")
    assert strategy._multi_worker.cache_info().currsize == 0


def test_replicas_and_micro_batches_share_the_batch(tmp_path):
    described = planned(tmp_path, options=Options(strategy="mirrored", micro_batches=4))
    assert "mirrored: 2 replicas" in told(described, "devices")
    assert told(described, "batch").startswith("256 images, 128 a replica, in 4 micro-batches of 32")


def activations(described: Plan) -> float:
    number, unit = re.search(r"activations (\S+) (\w+)", told(described, "memory")).groups()
    return float(number) * {"kB": 1, "MB": 1e3}[unit]


def test_branches_on_devices_of_their_own_and_in_turn_take_less_memory(tmp_path):
    side_by_side = planned(tmp_path, options=Options(strategy="one_device"))
    placed = planned(tmp_path, options=Options(strategy="branch_parallel"))
    assert "1 branch on each of 2 devices" in told(placed, "devices")
    assert activations(placed) == pytest.approx(activations(side_by_side) / 2, rel=0.05)  # told in tenths
    in_turn = planned(tmp_path, options=Options(strategy="one_device", branches_in_turn=True))
    assert activations(in_turn) < activations(side_by_side)


def test_a_warm_start_from_nowhere_is_a_problem(tmp_path):
    described = planned(tmp_path, runs.experiment(warm_start=WarmStart(str(tmp_path / "other"))))
    assert told(described, "warm start").startswith("PROBLEM: No run lies there")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"early_stopping": 2}, "stopped early"),
        ({"batch_size": 5000}, "do not fill one batch"),
        ({"learning_rate": LearningRate(warmup_epochs=2)}, "warm-up is not shorter"),
        ({"optimizer": OptimizerConfig(exclude_from_decay=("^nothing",))}, "matches no variable"),
        ({"backbone": "tiny_no_norm", "synchronised_norm": True}, "no batch norm"),
        ({"views": "nothing"}, "nothing"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_settings_that_training_refuses_are_refused_alike(tmp_path, changes, says):
    described = runs.experiment(**changes)
    with pytest.raises(InputError) as planning:
        planned(tmp_path / "run", described)
    with pytest.raises(InputError) as training:
        loop.train(described, model_dir=tmp_path / "run", report=lambda line: None)
    assert one_line(planning.value, says=says) and str(planning.value) == str(training.value)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(InputError, match="multiple of 6 would work"):
        planned(tmp_path, options=Options(strategy="mirrored", micro_batches=3))
