"""The optimizer of the paper's rows: SGD as PyTorch has it."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.divide import divide_weight_decay
from divco_tf.registry import did_you_mean

Rate = float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], tf.Tensor]

NEVER_DECAYED = ("bias", "beta")
"""Last parts of the names of variables that no published row decays."""
NORM_SCALE = "gamma"


@keras.saving.register_keras_serializable(package="divco_tf")
class SGD(keras.optimizers.Optimizer):
    """SGD with momentum and L2 regularisation, both as in PyTorch and so in the paper's training.

        d = gradient + weight_decay * w
        buffer = momentum * buffer + d
        w = w - learning_rate * (d + momentum * buffer)     (Nesterov; else w - learning_rate * buffer)

    Two things set it apart from `keras.optimizers.SGD`. The learning rate is applied outside the buffer, so
    a change of it acts on the whole momentum at once. And weight decay is coupled: added to the gradient,
    after unscaling and clipping, it goes through the momentum (Keras's is decoupled). A `weight_decay` of
    0.0001 therefore means here what it means in the paper.

    Gradients are clipped after they have been summed over replicas, so clipping does not depend on their
    number; Keras's own optimizers clip each replica's share.

    Args:
      learning_rate: a float, a Keras schedule, or a function without arguments.
      momentum: 0 <= momentum < 1; 0 keeps no buffer.
      nesterov: whether the update looks ahead by one step of momentum.
      weight_decay: coupled L2, 0 or more.
      exclude_from_decay: names of variables that are not decayed, compared with the last part of a
        variable's path ("stage1_conv.kernel" and "stage1_conv/kernel" both end in "kernel"). Rank cannot
        tell, as stacked branches add an axis. `exclude_from_weight_decay()`, Keras's method, excludes more.
      **keras_arguments: those of `keras.optimizers.Optimizer`: clipnorm, global_clipnorm, clipvalue,
        use_ema, loss_scale_factor, gradient_accumulation_steps, name, ...

    Raises:
      InputError: a number outside its range.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.1,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        exclude_from_decay: Sequence[str] = (*NEVER_DECAYED, NORM_SCALE),
        **keras_arguments: Any,
    ) -> None:
        _check_momentum(momentum)
        _check_at_least_0("weight_decay", weight_decay)
        if isinstance(exclude_from_decay, str):
            raise InputError(
                f'exclude_from_decay is one text. Received: {exclude_from_decay!r}; pass a list such as ["bias"].'
            )
        if not callable(learning_rate):
            _check_at_least_0("learning_rate", learning_rate)
            learning_rate = float(learning_rate)
        # Keras's own weight_decay stays None: it is the decoupled one.
        super().__init__(learning_rate=learning_rate, **keras_arguments)
        self.momentum = momentum
        self.nesterov = nesterov
        self.coupled_weight_decay = weight_decay
        self.exclude_from_decay = frozenset(exclude_from_decay)

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the momentum buffers, and decides once which variables are decayed."""
        if self.built:
            return
        super().build(variables)
        self.buffers = self.add_optimizer_variables(variables, "momentum") if self.momentum else []
        # Later, Keras hands over bare tf.Variables, whose names differ on every replica.
        self._decayed = frozenset(
            index for index, variable in enumerate(variables) if self.coupled_weight_decay and self._decays(variable)
        )

    def _decays(self, variable: keras.Variable) -> bool:
        path = getattr(variable, "path", variable.name)
        last = re.split(r"[/.]", path.split(":")[0])[-1]
        return last not in self.exclude_from_decay and self._use_weight_decay(variable)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Updates one variable and its buffer (called by Keras, on every replica)."""
        variable = variable.value if isinstance(variable, keras.Variable) else variable
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        learning_rate = tf.cast(learning_rate, variable.dtype)
        index = self._get_variable_index(variable)
        if index in self._decayed:
            gradient += self.coupled_weight_decay * variable
        if not self.momentum:
            variable.assign_sub(learning_rate * gradient)
            return
        # One kernel for buffer and weights. Unlike ResourceApplyKerasMomentum it leaves the rate outside.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.buffers[index].value.handle,
            lr=learning_rate,
            grad=gradient,
            momentum=tf.constant(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def _clip_gradients(self, grads: list[tf.Tensor]) -> list[tf.Tensor]:
        clips = self.clipnorm or self.global_clipnorm or self.clipvalue
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if not clips or replicas == 1:
            return super()._clip_gradients(grads)
        # Keras sums over replicas after this: each hands on its share of the clipped sum.
        grads = [tf.convert_to_tensor(gradient) for gradient in grads]
        grads = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, grads)
        return [gradient / replicas for gradient in super()._clip_gradients(grads)]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON has them."""
        return super().get_config() | {
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.coupled_weight_decay,
            "exclude_from_decay": sorted(self.exclude_from_decay),
        }


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer, and how it regularises.

    Raises:
      InputError: an unknown name, or a number outside its range.
    """

    name: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    """Coupled L2 of the large network."""
    decay_norm_scales: bool = False
    """Whether batch-norm scales are decayed too, as in most of the paper's networks; biases never are."""
    divide_weight_decay: bool = False
    """Whether each small network gets weight_decay * exp(1/S - 1), the paper's rule (section III-A)."""
    clipnorm: float | None = None
    """Largest norm of one variable's gradient, the branches of a stacked one together."""
    global_clipnorm: float | None = None
    """Largest norm of all gradients together."""

    def __post_init__(self) -> None:
        """Refuses what no optimizer takes."""
        if self.name not in _OPTIMIZERS:
            raise InputError(f"Unknown optimizer. Received: {self.name}.{did_you_mean(self.name, _OPTIMIZERS)}")
        _check_momentum(self.momentum)
        _check_at_least_0("weight_decay", self.weight_decay)
        for name in ("clipnorm", "global_clipnorm"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise InputError(f"{name} is no positive number. Received: {value!r}; pass None not to clip.")
        if self.clipnorm is not None and self.global_clipnorm is not None:
            raise InputError(
                f"Gradients are clipped twice. Received: clipnorm={self.clipnorm}, "
                f"global_clipnorm={self.global_clipnorm}; pass one of the two."
            )

    def build(self, learning_rate: Rate, split_factor: int = 1) -> keras.optimizers.Optimizer:
        """A new optimizer.

        Args:
          learning_rate: a float or a schedule.
          split_factor: S, by which weight decay is divided if the configuration says so.

        Raises:
          InputError: a learning rate or a split factor outside its range.
        """
        weight_decay = self.weight_decay
        if self.divide_weight_decay:
            weight_decay = divide_weight_decay(weight_decay, split_factor)
        return _OPTIMIZERS[self.name](self, learning_rate, weight_decay)


def _sgd(config: OptimizerConfig, learning_rate: Rate, weight_decay: float) -> SGD:
    return SGD(
        learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=weight_decay,
        exclude_from_decay=NEVER_DECAYED if config.decay_norm_scales else (*NEVER_DECAYED, NORM_SCALE),
        clipnorm=config.clipnorm,
        global_clipnorm=config.global_clipnorm,
    )


_OPTIMIZERS: dict[str, Callable[[OptimizerConfig, Rate, float], keras.optimizers.Optimizer]] = {"sgd": _sgd}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_momentum(momentum: float) -> None:
    if not (_is_number(momentum) and 0 <= momentum < 1):
        raise InputError(f"Momentum is outside its range. Received: {momentum!r}; pass 0 or more, and below 1.")


def _check_at_least_0(name: str, value: float) -> None:
    if not (_is_number(value) and value >= 0):
        raise InputError(f"{name} is negative or no number. Received: {value!r}; pass 0 or more.")
