"""How the learning rate goes over a run: a frozen configuration in epochs, which become steps when its length is known.

A rule is a function of (`LearningRate`, `Moment`) -> rate and a line of `RULES`; what it needs to be told is a field of
`LearningRate`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import keras
import tensorflow as tf

from divco_tf import fields
from divco_tf.errors import InputError
from divco_tf.fields import Above0, AtLeast0, Positive, Whole, Within
from divco_tf.registry import did_you_mean
from divco_tf.training.warmup import check_warmup, warmup_steps


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
    learning_rate: Above0 = 0.1
    """The rate at the end of the warm-up, from which the rule goes on."""
    warmup_epochs: Annotated[float, Within(-1)] = 0
    """Length of the linear warm-up; the rule takes up the rest of the run. -1 is the reference's name for
    none on SVHN and in its runs of 1,800 epochs, and is kept as it acts: the rule starts one epoch late
    on a run that is one epoch longer."""
    warmup_steps: Whole | None = None
    """The same in steps, in place of epochs: whatever the amount of data."""
    warmup_learning_rate: AtLeast0 = 0.0
    """The rate at step 0 of a warm-up."""
    final_learning_rate: AtLeast0 = 0.0
    """The rate never falls below this, in the warm-up neither."""
    base_batch_size: Positive | None = None
    """The rates here are for batches of so many images: a run's are in proportion to its own batch (arXiv 1706.02677,
    section 2.1), all of them, the warm-up's and the floor too, so the schedule keeps its shape. There a warm-up starts
    from the rate that is not scaled: `warmup_learning_rate = learning_rate * base_batch_size / batch_size` says so.
    None: the rates hold whatever the batch."""
    milestones: tuple[Whole, ...] | None = None
    """"step": the epochs at which the rate is multiplied by `step_factor`, counted from the run's start."""
    step_epochs: Positive = 30
    """"step" without milestones: multiply every so many epochs."""
    step_factor: Above0 = 0.1
    power: Above0 = 0.9
    """"poly": the exponent."""
    htd_lower: float = -6.0
    htd_upper: float = 3.0
    """"htd": the range of the hyperbolic tangent that the run goes through."""
    decay_factor: Above0 = 0.97
    """"exponential": multiply by this every `decay_epochs`, counted from the warm-up's end."""
    decay_epochs: Above0 = 2.4
    staircase: bool = True
    """"exponential": in jumps, or continuously."""

    def __post_init__(self) -> None:
        """Refuses what no run can follow."""
        fields.check(self)
        if self.rule not in RULES:
            raise InputError(f"Unknown learning-rate rule. Received: {self.rule}.{did_you_mean(self.rule, RULES)}")
        check_warmup(self.warmup_epochs, self.warmup_steps)
        if self.htd_upper <= self.htd_lower:
            raise InputError(
                f"htd_upper is not above htd_lower. Received: {self.htd_upper}; pass more than {self.htd_lower}."
            )
        for name in ("warmup_learning_rate", "final_learning_rate"):
            used = name == "final_learning_rate" or self.warmup_epochs > 0 or self.warmup_steps
            if used and getattr(self, name) > self.learning_rate:
                raise InputError(
                    f"{name} is above the learning rate. Received: {getattr(self, name)}; "
                    f"pass at most {self.learning_rate}."
                )

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

    def warmup(self, steps_per_epoch: int) -> float:
        """The length of the warm-up in steps."""
        return warmup_steps(self.warmup_epochs, self.warmup_steps, steps_per_epoch=steps_per_epoch)

    def scaled(self, batch_size: int | None) -> "LearningRate":
        """The same with the rates of a run whose batch has `batch_size` images.

        Raises:
          InputError: `base_batch_size` needs one, and there is none.
        """
        if self.base_batch_size is None:
            return self
        batch_size = fields.checked(batch_size, Positive, "the batch size by which the learning rate is scaled")
        factor = batch_size / self.base_batch_size
        names = ("learning_rate", "warmup_learning_rate", "final_learning_rate")
        return dataclasses.replace(self, base_batch_size=None, **{name: factor * getattr(self, name) for name in names})


class Moment(NamedTuple):
    """A moment of a run, as the rules see it: float64 scalars."""

    epoch: tf.Tensor
    """Whole epochs since the run's start."""
    steps: tf.Tensor
    """Steps since the warm-up's end; negative before it, where what a rule gives is not used but must be a number."""
    steps_per_epoch: int
    fraction: tf.Tensor
    """The rule's share of the run that is over, 1 at and after the end."""


# The rules. Each gives `learning_rate` where the warm-up ends (`steps` and `fraction` are 0), and goes on from there.


def _cos(config: LearningRate, moment: Moment) -> tf.Tensor:
    return 0.5 * config.learning_rate * (1 + tf.cos(math.pi * moment.fraction))


def _htd(config: LearningRate, moment: Moment) -> tf.Tensor:
    position = config.htd_lower + (config.htd_upper - config.htd_lower) * moment.fraction
    return 0.5 * config.learning_rate * (1 - tf.tanh(position))


def _step(config: LearningRate, moment: Moment) -> tf.Tensor:
    if config.milestones is None:
        passed = moment.epoch // config.step_epochs
    else:
        milestones = tf.constant(config.milestones, tf.float64, shape=[len(config.milestones)])
        passed = tf.reduce_sum(tf.cast(milestones <= moment.epoch, tf.float64))
    return config.learning_rate * config.step_factor**passed


def _poly(config: LearningRate, moment: Moment) -> tf.Tensor:
    return config.learning_rate * (1 - moment.fraction) ** config.power


def _exponential(config: LearningRate, moment: Moment) -> tf.Tensor:
    # Divided once: the reference's stairs lie where this rounding puts them.
    decays = moment.steps / (config.decay_epochs * moment.steps_per_epoch)
    return config.learning_rate * config.decay_factor ** (tf.floor(decays) if config.staircase else decays)


def _constant(config: LearningRate, moment: Moment) -> tf.Tensor:
    return tf.constant(config.learning_rate, tf.float64)


RULES: dict[str, Callable[[LearningRate, Moment], tf.Tensor]] = {
    "cos": _cos,
    "htd": _htd,
    "step": _step,
    "poly": _poly,
    "exponential": _exponential,
    "constant": _constant,
}
"""Learning-rate rules by name. Warm-up and floor are `EpochSchedule`'s."""


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
        epochs = fields.checked(epochs, Above0, "epochs")
        steps_per_epoch = fields.checked(steps_per_epoch, Positive, "steps_per_epoch")
        if isinstance(learning_rate, dict):
            learning_rate = LearningRate(**learning_rate)
        if learning_rate.warmup_steps is not None:
            in_epochs = learning_rate.warmup_steps / steps_per_epoch
            learning_rate = dataclasses.replace(learning_rate, warmup_epochs=in_epochs, warmup_steps=None)
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
        moment = Moment(
            epoch=steps // self.steps_per_epoch,
            steps=rule_steps,
            steps_per_epoch=self.steps_per_epoch,
            fraction=tf.minimum(rule_steps / ((self.epochs - config.warmup_epochs) * self.steps_per_epoch), 1.0),
        )
        rate = RULES[config.rule](config, moment)
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
