"""How the learning rate and the weight of the co-training loss go over a run.

Both are frozen configurations in epochs. Epochs become steps here and nowhere else, when the length of a
run is known.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from divco_tf import fields
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean
from divco_tf.training.losses import cotraining_loss

SHORTEST_WARMUP = 1e-3
"""Epochs: TensorFlow flushes numbers near 0, and a warm-up of 1e-309 epochs would be 0 / 0."""


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """A learning rate over a run: a linear warm-up, a rule, and a floor.

    There is no multiplier for groups of parameters: the reference has one, but no published run ever had
    the third group that it applies to.

    Raises:
      InputError: an unknown rule, or a number outside its range.
    """

    rule: str = "cos"
    """A name in `RULES`: "cos" (arXiv 1608.03983), "htd" (arXiv 1806.01593), "step", "poly", "exponential"
    or "constant"."""
    learning_rate: float = 0.1
    """The rate at the end of the warm-up, from which the rule goes on."""
    warmup_epochs: float = 0
    """Length of the linear warm-up; the rule takes up the rest of the run. -1 is the reference's name for
    none on SVHN and in its runs of 1,800 epochs, and is kept as it acts: the rule starts one epoch late
    on a run that is one epoch longer."""
    warmup_learning_rate: float = 0.0
    """The rate at step 0 of a warm-up."""
    final_learning_rate: float = 0.0
    """The rate never falls below this, in the warm-up neither."""
    base_batch_size: int | None = None
    """The rates here are for batches of so many images: a run's are in proportion to its own batch (arXiv 1706.02677,
    section 2.1), all of them, the warm-up's and the floor too, so the schedule keeps its shape. There a warm-up starts
    from the rate that is not scaled: `warmup_learning_rate = learning_rate * base_batch_size / batch_size` says so.
    None: the rates hold whatever the batch."""
    milestones: tuple[int, ...] | None = None
    """"step": the epochs at which the rate is multiplied by `step_factor`, counted from the run's start."""
    step_epochs: int = 30
    """"step" without milestones: multiply every so many epochs."""
    step_factor: float = 0.1
    power: float = 0.9
    """"poly": the exponent."""
    htd_lower: float = -6.0
    htd_upper: float = 3.0
    """"htd": the range of the hyperbolic tangent that the run goes through."""
    decay_factor: float = 0.97
    """"exponential": multiply by this every `decay_epochs`, counted from the warm-up's end."""
    decay_epochs: float = 2.4
    staircase: bool = True
    """"exponential": in jumps, or continuously."""

    def __post_init__(self) -> None:
        """Refuses what no run can follow."""
        fields.check(self)
        if self.rule not in RULES:
            raise InputError(f"Unknown learning-rate rule. Received: {self.rule}.{did_you_mean(self.rule, RULES)}")
        for name in ("learning_rate", "step_epochs", "step_factor", "power", "decay_factor", "decay_epochs"):
            _check_number(name, getattr(self, name), above=0)
        for name in ("warmup_learning_rate", "final_learning_rate"):
            _check_number(name, getattr(self, name), least=0)
        _check_warmup(self.warmup_epochs, least=-1)
        _check_number("htd_lower", self.htd_lower)
        _check_number("htd_upper", self.htd_upper, above=self.htd_lower)
        for name in ("warmup_learning_rate", "final_learning_rate"):
            used = name == "final_learning_rate" or self.warmup_epochs > 0
            if used and getattr(self, name) > self.learning_rate:
                raise InputError(
                    f"{name} is above the learning rate. Received: {getattr(self, name)}; "
                    f"pass at most {self.learning_rate}."
                )
        if self.base_batch_size is not None:
            _check_batch_size("base_batch_size", self.base_batch_size)
        if self.milestones is not None:
            object.__setattr__(self, "milestones", tuple(self.milestones))  # gin and JSON give lists
            for milestone in self.milestones:
                _check_number("a milestone", milestone, least=0)

    def resolve(self, *, epochs: float, steps_per_epoch: int, batch_size: int | None = None) -> "EpochSchedule":
        """The schedule of one run, for any Keras optimizer.

        Args:
          epochs: length of the run.
          steps_per_epoch: steps (updates of the weights) an epoch.
          batch_size: images a step, the global number; needed where the rates are for a `base_batch_size`.

        Raises:
          InputError: a run without steps, or one that ends within its warm-up; a batch size that is missing.
        """
        return EpochSchedule(self.scaled(batch_size), epochs=epochs, steps_per_epoch=steps_per_epoch)

    def scaled(self, batch_size: int | None) -> "LearningRate":
        """The same with the rates of a run whose batch has `batch_size` images.

        Raises:
          InputError: `base_batch_size` needs one, and there is none.
        """
        if self.base_batch_size is None:
            return self
        _check_batch_size("The batch size by which the learning rate is scaled", batch_size)
        factor = batch_size / self.base_batch_size
        names = ("learning_rate", "warmup_learning_rate", "final_learning_rate")
        return dataclasses.replace(self, base_batch_size=None, **{name: factor * getattr(self, name) for name in names})


class _Time(NamedTuple):
    """A moment of a run, as the rules see it: float64 scalars."""

    epoch: tf.Tensor
    """Whole epochs since the run's start."""
    steps: tf.Tensor
    """Steps since the warm-up's end."""
    steps_per_epoch: int
    fraction: tf.Tensor
    """The rule's share of the run that is over, 1 at and after the end."""


def _cos(config: LearningRate, time: _Time) -> tf.Tensor:
    return 0.5 * config.learning_rate * (1 + tf.cos(math.pi * time.fraction))


def _htd(config: LearningRate, time: _Time) -> tf.Tensor:
    position = config.htd_lower + (config.htd_upper - config.htd_lower) * time.fraction
    return 0.5 * config.learning_rate * (1 - tf.tanh(position))


def _step(config: LearningRate, time: _Time) -> tf.Tensor:
    if config.milestones is None:
        passed = time.epoch // config.step_epochs
    else:
        milestones = tf.constant(config.milestones, tf.float64, shape=[len(config.milestones)])
        passed = tf.reduce_sum(tf.cast(milestones <= time.epoch, tf.float64))
    return config.learning_rate * config.step_factor**passed


def _poly(config: LearningRate, time: _Time) -> tf.Tensor:
    return config.learning_rate * (1 - time.fraction) ** config.power


def _exponential(config: LearningRate, time: _Time) -> tf.Tensor:
    # Divided once: the reference's stairs lie where this rounding puts them.
    decays = time.steps / (config.decay_epochs * time.steps_per_epoch)
    return config.learning_rate * config.decay_factor ** (tf.floor(decays) if config.staircase else decays)


def _constant(config: LearningRate, time: _Time) -> tf.Tensor:
    return tf.constant(config.learning_rate, tf.float64)


RULES: dict[str, Callable[[LearningRate, _Time], tf.Tensor]] = {
    "cos": _cos,
    "htd": _htd,
    "step": _step,
    "poly": _poly,
    "exponential": _exponential,
    "constant": _constant,
}
"""Learning-rate rules by name; each takes over from `learning_rate` when the warm-up ends."""


@keras.saving.register_keras_serializable(package="divco_tf")
class EpochSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A `LearningRate` on a run of known length: step -> learning rate.

    Args:
      learning_rate: the configuration, or its `dataclasses.asdict`.
      epochs: length of the run.
      steps_per_epoch: steps an epoch.

    Raises:
      InputError: a run without steps, or one that ends within its warm-up.
    """

    def __init__(self, learning_rate: LearningRate | dict[str, Any], *, epochs: float, steps_per_epoch: int) -> None:
        super().__init__()
        _check_number("epochs", epochs, above=0)
        check_steps_per_epoch(steps_per_epoch)
        if isinstance(learning_rate, dict):
            learning_rate = LearningRate(**learning_rate)
        if learning_rate.warmup_epochs >= epochs:
            raise InputError(
                f"The warm-up is not shorter than the run. Received: {learning_rate.warmup_epochs} epochs of "
                f"warm-up, {epochs} in all; shorten the one or lengthen the other."
            )
        # Rates for another batch than the run's would not be its own: `resolve` has scaled them.
        self.config, self.epochs, self.steps_per_epoch = learning_rate.scaled(None), epochs, steps_per_epoch

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The learning rate of the update that comes after `step` updates, float32."""
        return self.at(step, dtype=tf.float32)

    def at(self, step: tf.Tensor | int, *, dtype: str | tf.DType = tf.float64) -> tf.Tensor:
        """The same in another type. It is computed in float64 always, with the same ops for a Python number.

        `step` is a scalar, and any number from 0; after the run's end the rate stays as it ended, or goes
        on falling by the "step" and "exponential" rules.
        """
        config = self.config
        steps = tf.cast(tf.convert_to_tensor(step), tf.float64)
        warmup_steps = config.warmup_epochs * self.steps_per_epoch
        rule_steps = steps - warmup_steps
        time = _Time(
            epoch=steps // self.steps_per_epoch,
            steps=rule_steps,
            steps_per_epoch=self.steps_per_epoch,
            fraction=tf.minimum(rule_steps / ((self.epochs - config.warmup_epochs) * self.steps_per_epoch), 1.0),
        )
        rate = RULES[config.rule](config, time)
        if warmup_steps > 0:
            rise = (config.learning_rate - config.warmup_learning_rate) * steps / warmup_steps
            rate = tf.where(steps <= warmup_steps, config.warmup_learning_rate + rise, rate)
        return tf.cast(tf.maximum(rate, config.final_learning_rate), dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON has them."""
        return {
            "learning_rate": dataclasses.asdict(self.config),
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
        }


@dataclasses.dataclass(frozen=True)
class CoTraining:
    """The co-training loss and its weight over a run (arXiv 2011.14660, section III-B).

    Raises:
      InputError: an unknown loss, or a number outside its range.
    """

    loss: str = "js"
    """A name in `divco_tf.training.losses.COTRAINING_LOSSES`."""
    weight: float = 0.5
    """The weight after the ramp; 0 trains branches that do not know each other."""
    warmup_epochs: float = 0
    """Length of the ramp from 0: branches that have learnt nothing yet have nothing to teach."""
    floor: float = 0.005
    """The ramp starts at this instead of 0, as the reference's does, or at `weight` where that is less."""
    per_step: bool = False
    """Whether the ramp rises at every step, or at every epoch as the reference's does."""

    def __post_init__(self) -> None:
        """Refuses what no run can follow."""
        fields.check(self)
        cotraining_loss(self.loss)
        for name in ("weight", "floor"):
            _check_number(name, getattr(self, name), least=0)
        _check_warmup(self.warmup_epochs, least=0)

    def weight_at(self, step: tf.Tensor | int, *, steps_per_epoch: int) -> tf.Tensor:
        """The weight of the update that comes after `step` updates, float32 scalar.

        Raises:
          InputError: no positive whole number of steps an epoch.
        """
        check_steps_per_epoch(steps_per_epoch)
        if self.warmup_epochs == 0:
            return tf.constant(self.weight, tf.float32)
        steps = tf.cast(tf.convert_to_tensor(step), tf.float64)
        epoch = steps / steps_per_epoch if self.per_step else steps // steps_per_epoch
        ramp = tf.maximum(self.weight * epoch / self.warmup_epochs, self.floor)
        return tf.cast(tf.minimum(ramp, self.weight), tf.float32)


def check_steps_per_epoch(steps: int) -> None:
    """Refuses what is no positive whole number."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(
            f"An epoch has no positive whole number of steps. Received: {steps!r}; "
            "pass floor(images / batch size), at least 1."
        )


def _check_batch_size(name: str, size: int | None) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"{name} is no positive whole number. Received: {size!r}; pass 1 or more, 256 is usual.")


def _check_number(name: str, value: float, *, least: float = -math.inf, above: float = -math.inf) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < least or value <= above:
        bounds = f" above {above}" if above > -math.inf else f" of {least} or more" if least > -math.inf else ""
        raise InputError(f"{name} is out of range or no number. Received: {value!r}; pass a number{bounds}.")


def _check_warmup(epochs: float, *, least: float) -> None:
    _check_number("warmup_epochs", epochs, least=least)
    if 0 < epochs < SHORTEST_WARMUP:
        raise InputError(f"The warm-up is too short. Received: {epochs} epochs; pass 0 or {SHORTEST_WARMUP} and more.")
