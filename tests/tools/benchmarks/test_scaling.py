"""`divco-benchmark scaling`, and the processes that benchmarks run in."""

import json
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError, RunError
from divco_tf.models.branch_stack import build
from divco_tf.tools.benchmarks import scaling
from divco_tf.tools.benchmarks.process import Worker
from divco_tf.tools.benchmarks.step import Settings, cotraining_model
from tests.tiny import largest_difference, lively, one_line, values
from tests.tools.told_times import told_times  # noqa: F401 the fixture


def settings(split_factor: int = 2, backbone: str = "tiny") -> Settings:
    return Settings(backbone, {"split_factor": split_factor}, batch_size=4, image_size=8, num_classes=3)


SIZES = settings().sizes


def quiet(line: str) -> None:
    """A report that nobody reads."""


def test_the_tables_have_a_row_for_each_split_factor_and_for_the_overhead(told_times, monkeypatch):  # noqa: F811
    monkeypatch.setattr(scaling, "torch_version", lambda: None)
    result = scaling.run(
        backbones=["tiny"],
        split_factors=[1, 2],
        batch_size=4,
        rounds=2,
        steps=3,
        report=quiet,
        parts=["division", "overhead"],
        image_size=8,
        num_classes=3,
    )
    systems = json.loads(json.dumps(result["systems"]))
    division, pieces = systems["division"]["tiny"], systems["overhead"]["tiny"]
    kinds = [f"S={s}, {kind}" for s in (1, 2) for kind in (scaling.STEP, scaling.ALONE)]
    assert [division[kind]["rounds"] for kind in kinds] == [[2 * n, 3 * n] for n in (1, 2, 3, 4)]
    step = division[kinds[2]]
    assert step["median_ratios"] == {"of_first": 3, "of_torch": None, "overhead": 1 - 4 / 3}
    assert step["fastest_ratios"] == {"of_first": 3, "of_torch": None, "overhead": 1 - 4 / 3}
    assert division[kinds[0]]["multiply_adds"] == division[kinds[0]]["activations"] == 1
    for (head, rows), expected in zip(result["tables"], (["1", "2"], ["2"]), strict=True):
        assert [len(row) for row in rows] == [len(head)] * len(rows)
        assert [row[:2] for row in rows] == [("tiny", s) for s in expected]
    assert list(pieces) == [scaling.STEP, scaling.STACKING, scaling.UPDATE]
    assert pieces[scaling.STEP]["overhead"] == pytest.approx((6 + 7) / 5)


@pytest.mark.parametrize("split_factor", [1, 2])
def test_loss_and_gradients_alone_are_those_of_the_training_step(split_factor):
    case = settings(split_factor)
    stack = lively(build(case.backbone, **case.division, **case.sizes))
    views, labels = map(tf.constant, case.batch())
    loss, gradients = scaling.loss_and_gradients(stack, views, labels)()
    model = cotraining_model(stack)
    expected, _, logits = model._gradients(views, labels, None, tf.constant(0), tf.constant(4))
    assert len(gradients) == split_factor
    stacked = [tf.stack(parts).numpy() for parts in zip(*gradients, strict=True)]
    assert largest_difference(stacked, [gradient.numpy() for gradient in expected]) < 1e-5
    assert max(np.abs(gradient).max() for gradient in stacked) > 0.01
    assert float(loss) == pytest.approx(float(tf.reduce_mean(model._loss_values(logits, labels)["loss"])), abs=1e-5)


def test_the_update_alone_moves_weights_and_skips_nothing():
    model = cotraining_model(lively(build("tiny", split_factor=2, **SIZES)))
    before = values(model.stack.trainable_variables)
    assert scaling.update(model)() == 0
    assert largest_difference(before, values(model.stack.trainable_variables)) > 0


def test_micro_batches_and_strategies_take_the_same_step():
    systems = [scaling.System(settings(backbone="tiny_no_norm"), **options) for options in VARIANTS]
    losses = []
    for system in systems:
        step = system.step()
        losses.append([step() for _ in range(3)])
    np.testing.assert_allclose(losses[1:], losses[:1] * (len(losses) - 1), rtol=1e-5)


VARIANTS = ({}, {"micro_batches": 2}, {"micro_batches": 4}, {"strategy": "mirrored"}, {"strategy": "branch_parallel"})


def test_branches_are_placed_only_where_they_divide_over_the_devices():
    assert "branch_parallel, 2 logical CPUs" in scaling._devices(settings(2))
    assert "branch_parallel, 2 logical CPUs" not in scaling._devices(settings(1))


def test_what_does_not_divide_the_batch_is_no_case():
    assert list(scaling._micro_batches(settings())) == ["1 of 4 images", "2 of 2 images", "4 of 1 images"]
    odd = Settings("tiny", {"split_factor": 2}, batch_size=6, image_size=8, num_classes=3)
    assert list(scaling._micro_batches(odd)) == ["1 of 6 images", "2 of 3 images"]


def test_sizes_are_those_of_all_branches():
    (large, activations), (divided, more) = (
        scaling._sizes(Settings("wide_resnet16_8", {"split_factor": s}, 1, 32, 10)) for s in (1, 4)
    )
    assert divided / large == pytest.approx(1, abs=0.02)
    assert more / activations == pytest.approx(2, abs=0.05)  # 4 networks of half the width


def test_an_unknown_part_is_refused():
    with pytest.raises(InputError) as error:
        scaling.run(
            backbones=["tiny"], split_factors=[1], batch_size=4, rounds=1, steps=1, report=quiet, parts=["device"]
        )
    assert one_line(error.value, says="device")


def failing() -> None:
    raise ValueError("first line\nsecond line")


def sleeping() -> None:
    time.sleep(600)


@pytest.mark.parametrize(
    ("make", "limit", "says"), [(failing, None, "ValueError: first line second line"), (sleeping, 0.5, "within 0.5 s")]
)
def test_a_worker_that_fails_or_takes_too_long_ends_in_one_line(make, limit, says):
    with pytest.raises(RunError) as error:
        Worker("a system", make, cpu_threads=None, report=quiet, limit=limit)
    assert one_line(error.value, says=says)


def held() -> Any:
    """A step that takes 64 MB and gives them back."""
    return lambda: np.ones(64_000_000, np.uint8)[::4096].sum()


def test_a_worker_tells_what_a_step_takes_and_if_it_is_killed_between_its_turns():
    with Worker("a system", held, cpu_threads=None, report=quiet, measures_memory=True) as worker:
        assert 62e6 < worker.step_bytes() < 70e6  # beside what was there before
        assert set(worker.times) == {"build", "first", "peak_mb", "rounds"}
        worker._process.kill()  # as the kernel does where memory runs out
        worker._process.join()
        with pytest.raises(RunError) as error:
            worker.seconds(1)
    assert one_line(error.value, says="exit status -9")
