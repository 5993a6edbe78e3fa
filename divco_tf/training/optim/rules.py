"""How weights are updated: the optimizers of the authors' training, with PyTorch's rules."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ClassVar

import keras
import tensorflow as tf

from divco_tf import fields, keras_settings
from divco_tf.errors import InputError
from divco_tf.fields import Above0, AtLeast0, Positive, Share, Within
from divco_tf.models.placement import canonical_name

Rate = float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], tf.Tensor]

NEVER_DECAYED = ("bias", "beta")
"""Last parts of the names of variables that no published row decays."""
NORM_SCALE = "gamma"

Kept = Annotated[float, Within(0, below=1)]
"""How much of an average a step keeps."""

_KERAS_ARGUMENTS = {
    **dict.fromkeys(("clipnorm", "global_clipnorm", "clipvalue", "loss_scale_factor"), AtLeast0 | None),
    "use_ema": bool,
    "ema_momentum": Share,
    **dict.fromkeys(("ema_overwrite_frequency", "gradient_accumulation_steps"), Positive | None),
    "name": str | None,
}


class RegularisedOptimizer(keras.optimizers.Optimizer):
    """What the optimizers here have in common, where Keras's differ: which variables are decayed, and clipping.

    A rule is a subclass: its `settings`, the slots that it keeps of each variable (`_add_slots`), and the arithmetic
    (`_update`).

    Gradients are clipped after they have been summed over replicas, so clipping does not depend on their
    number; Keras's own optimizers clip each replica's share.

    Args:
      learning_rate: a float, a Keras schedule, or a function without arguments.
      weight_decay: 0 or more.
      exclude_from_decay: names of variables that are not decayed, compared with the last part of a
        variable's path ("stage1_conv.kernel" and "stage1_conv/kernel" both end in "kernel"). Rank cannot
        tell, as stacked branches add an axis. `exclude_from_weight_decay()`, Keras's method, excludes more.
      exclude_patterns: further ones: regular expressions, searched in a variable's path and in its name. A
        stacked variable's name begins with its layer: "^stem", "fc.kernel".
      **arguments: the rule's `settings`, and those of `keras.optimizers.Optimizer`: clipnorm, global_clipnorm,
        clipvalue, use_ema, loss_scale_factor, gradient_accumulation_steps, name, ...

    Raises:
      InputError: a number outside its range, or a pattern that is no regular expression; from `build`, a pattern that
        matches no variable.
    """

    settings: ClassVar[dict[str, Any]] = {}
    """The arguments that a rule has of its own, and their type hints; they become attributes."""

    @keras_settings.ours()
    def __init__(
        self,
        learning_rate: Rate,
        weight_decay: float = 0.0,
        exclude_from_decay: Sequence[str] = (*NEVER_DECAYED, NORM_SCALE),
        exclude_patterns: Sequence[str] = (),
        **arguments: Any,
    ) -> None:
        weight_decay = fields.checked(weight_decay, AtLeast0, "weight_decay")
        _check_texts("exclude_from_decay", exclude_from_decay)
        check_patterns("exclude_patterns", exclude_patterns)
        own = {name: fields.checked(arguments.pop(name), hint, name) for name, hint in self.settings.items()}
        for name, hint in _KERAS_ARGUMENTS.items():
            if name in arguments:
                fields.checked(arguments[name], hint, name)
        if not callable(learning_rate):
            learning_rate = float(fields.checked(learning_rate, AtLeast0, "learning_rate"))
        # Keras's own weight_decay stays None: Keras would decay every variable it has not been told of.
        super().__init__(learning_rate=learning_rate, **arguments)
        self.decay = weight_decay
        self.exclude_from_decay = frozenset(exclude_from_decay)
        self.exclude_patterns = tuple(exclude_patterns)
        for name, value in own.items():
            setattr(self, name, value)

    @keras_settings.ours()
    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the optimizer's variables, and decides once which variables are decayed."""
        if self.built:
            return
        for pattern in self.exclude_patterns:
            if not any(_matches(pattern, variable) for variable in variables):
                known = ", ".join(variable.name for variable in variables[:3])
                raise InputError(
                    f"A pattern of what is not decayed matches no variable. Received: {pattern!r}; "
                    f"variables are called {known}, ..."
                )
        super().build(variables)
        self._add_slots(variables)
        # Later, Keras hands over bare tf.Variables, whose names differ on every replica.
        self._decayed = frozenset(
            index for index, variable in enumerate(variables) if self.decay and self._decays(variable)
        )

    def _add_slots(self, variables: list[keras.Variable]) -> None:
        """Makes what the optimizer keeps of each variable."""
        raise NotImplementedError

    def _decays(self, variable: keras.Variable) -> bool:
        named = re.split(r"[/.]", variable.path)[-1] in self.exclude_from_decay
        matched = any(_matches(pattern, variable) for pattern in self.exclude_patterns)
        return not named and not matched and self._use_weight_decay(variable)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Updates one variable and what is kept of it (called by Keras, on every replica)."""
        variable = variable.value if isinstance(variable, keras.Variable) else variable
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        index = self._get_variable_index(variable)
        self._update(index, variable, gradient, tf.cast(learning_rate, variable.dtype))

    def _update(self, index: int, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        raise NotImplementedError

    def _with_decay(self, index: int, variable: tf.Variable, gradient: tf.Tensor) -> tf.Tensor:
        """The gradient of the loss and of coupled L2."""
        return gradient + self.decay * variable if index in self._decayed else gradient

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
        own = {name: getattr(self, name) for name in self.settings}
        return super().get_config() | {
            "weight_decay": self.decay,
            "exclude_from_decay": sorted(self.exclude_from_decay),
            "exclude_patterns": list(self.exclude_patterns),
            **{name: list(value) if isinstance(value, tuple) else value for name, value in own.items()},
        }


@keras.saving.register_keras_serializable(package="divco_tf")
class SGD(RegularisedOptimizer):
    """SGD with momentum and L2 regularisation, both as in PyTorch and so in the paper's training.

        d = gradient + weight_decay * w
        buffer = momentum * buffer + d
        w = w - learning_rate * (d + momentum * buffer)     (Nesterov; else w - learning_rate * buffer)

    Two things set it apart from `keras.optimizers.SGD`. The learning rate is applied outside the buffer, so
    a change of it acts on the whole momentum at once. And weight decay is coupled: added to the gradient,
    after unscaling and clipping, it goes through the momentum (Keras's is decoupled). A `weight_decay` of
    0.0001 therefore means here what it means in the paper.

    Args:
      learning_rate: a float, a Keras schedule, or a function without arguments.
      momentum: 0 <= momentum < 1; 0 keeps no buffer.
      nesterov: whether the update looks ahead by one step of momentum.
      weight_decay: coupled L2, 0 or more.
      exclude_from_decay: see `RegularisedOptimizer`.
      **arguments: see `RegularisedOptimizer`.

    Raises:
      InputError: as `RegularisedOptimizer`.
    """

    settings: ClassVar = {"momentum": Kept, "nesterov": bool}

    def __init__(
        self,
        learning_rate: Rate = 0.1,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        exclude_from_decay: Sequence[str] = (*NEVER_DECAYED, NORM_SCALE),
        **arguments: Any,
    ) -> None:
        own = {"momentum": momentum, "nesterov": nesterov}
        super().__init__(learning_rate, weight_decay, exclude_from_decay, **own, **arguments)

    def _add_slots(self, variables: list[keras.Variable]) -> None:
        self.buffers = self.add_optimizer_variables(variables, "momentum") if self.momentum else []

    def _update(self, index: int, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        gradient = self._with_decay(index, variable, gradient)
        _descend(self, index, variable, gradient, learning_rate, nesterov=self.nesterov)


@keras.saving.register_keras_serializable(package="divco_tf")
class RMSprop(RegularisedOptimizer):
    """RMSprop with momentum and L2 regularisation as in PyTorch.

        d = gradient + weight_decay * w
        square = alpha * square + (1 - alpha) * d * d               (from 0)
        buffer = momentum * buffer + d / (sqrt(square) + epsilon)
        w = w - learning_rate * buffer

    Args:
      learning_rate: a float, a Keras schedule, or a function without arguments.
      alpha: 0 <= alpha < 1, how much of the squared average a step keeps.
      momentum: 0 <= momentum < 1; 0 keeps no buffer.
      epsilon: above 0.
      weight_decay: coupled L2, 0 or more.
      **arguments: see `RegularisedOptimizer`.

    Raises:
      InputError: as `RegularisedOptimizer`.
    """

    settings: ClassVar = {"alpha": Kept, "momentum": Kept, "epsilon": Above0}

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        alpha: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        **arguments: Any,
    ) -> None:
        own = {"alpha": alpha, "momentum": momentum, "epsilon": epsilon}
        super().__init__(learning_rate, weight_decay, **own, **arguments)

    def _add_slots(self, variables: list[keras.Variable]) -> None:
        self.squares = self.add_optimizer_variables(variables, "square")
        self.buffers = self.add_optimizer_variables(variables, "momentum") if self.momentum else []

    def _update(self, index: int, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        gradient = self._with_decay(index, variable, gradient)
        before = self.squares[index].value
        square = self.alpha * before + (1 - self.alpha) * tf.square(gradient)
        before.assign(square)
        _descend(self, index, variable, gradient / (tf.sqrt(square) + self.epsilon), learning_rate, nesterov=False)


@keras.saving.register_keras_serializable(package="divco_tf")
class RMSpropTF(RMSprop):
    """RMSprop as TensorFlow 1 had it, and so EfficientNet's training (arXiv 1905.11946, section 5.2).

        d = gradient + weight_decay * w
        square = alpha * square + (1 - alpha) * d * d               (from 1)
        buffer = momentum * buffer + learning_rate * d / sqrt(square + epsilon)
        w = w - buffer

    Unlike `RMSprop`, it begins with small steps, a change of the learning rate acts on new gradients only, and
    epsilon, inside of the root, bounds the step where gradients are small.

    Args:
      learning_rate: a float, a Keras schedule, or a function without arguments.
      epsilon: above 0.
      **arguments: see `RMSprop`; EfficientNet's values are the defaults.

    Raises:
      InputError: as `RegularisedOptimizer`.
    """

    def __init__(self, learning_rate: Rate = 0.01, epsilon: float = 1e-3, **arguments: Any) -> None:
        super().__init__(learning_rate, epsilon=epsilon, **arguments)

    def _add_slots(self, variables: list[keras.Variable]) -> None:
        self.squares = self.add_optimizer_variables(variables, "square", initializer="ones")
        self.buffers = self.add_optimizer_variables(variables, "momentum")

    def _update(self, index: int, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self.squares[index].value.handle,
            mom=self.buffers[index].value.handle,
            lr=learning_rate,
            rho=tf.constant(self.alpha, variable.dtype),
            momentum=tf.constant(self.momentum, variable.dtype),
            epsilon=tf.constant(self.epsilon, variable.dtype),
            grad=self._with_decay(index, variable, gradient),
        )


@keras.saving.register_keras_serializable(package="divco_tf")
class AdamW(RegularisedOptimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101) as in PyTorch.

        w = w - learning_rate * weight_decay * w
        mean = beta1 * mean + (1 - beta1) * gradient,  square = beta2 * square + (1 - beta2) * gradient ** 2
        w = w - learning_rate * mean' / (sqrt(square') + epsilon)

    where ' divides by 1 - beta ** step. (Keras's adds epsilon before it corrects the square, so that the first steps
    are smaller.)

    Args:
      learning_rate: a float, a Keras schedule, or a function without arguments.
      betas: 0 <= beta < 1, how much of the mean and of the squared average a step keeps.
      epsilon: above 0.
      weight_decay: decoupled, 0 or more.
      **arguments: see `RegularisedOptimizer`.

    Raises:
      InputError: as `RegularisedOptimizer`.
    """

    settings: ClassVar = {"betas": tuple[Kept, Kept], "epsilon": Above0}

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        **arguments: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, betas=betas, epsilon=epsilon, **arguments)

    def _add_slots(self, variables: list[keras.Variable]) -> None:
        self.means, self.squares = self.add_optimizer_variables(variables, ("mean", "square"))

    def _update(self, index: int, variable: tf.Variable, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        dtype = variable.dtype
        if index in self._decayed:
            variable.assign_sub(learning_rate * self.decay * variable)
        # The kernel adds epsilon before the correction, and float32 has few digits left of 1 - 0.999: so both
        # corrections go into its rate and epsilon, computed in float64 from the betas as the kernel rounds them.
        beta1, beta2 = (tf.constant(beta, dtype) for beta in self.betas)
        step = tf.cast(self.iterations + 1, tf.float64)
        correction1, correction2 = (1 - tf.pow(tf.cast(beta, tf.float64), step) for beta in (beta1, beta2))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.means[index].value.handle,
            v=self.squares[index].value.handle,
            beta1_power=tf.zeros([], dtype),
            beta2_power=tf.zeros([], dtype),
            lr=learning_rate * tf.cast(tf.sqrt(correction2) / correction1, dtype),
            beta1=beta1,
            beta2=beta2,
            epsilon=tf.cast(self.epsilon * tf.sqrt(correction2), dtype),
            grad=gradient,
        )


def _descend(
    optimizer: SGD | RMSprop,
    index: int,
    variable: tf.Variable,
    direction: tf.Tensor,
    learning_rate: tf.Tensor,
    *,
    nesterov: bool,
) -> None:
    """Moves a variable against `direction`, through the optimizer's momentum if it has any."""
    if not optimizer.momentum:
        variable.assign_sub(learning_rate * direction)
        return
    # One kernel for buffer and weights. Unlike ResourceApplyKerasMomentum it leaves the rate outside.
    tf.raw_ops.ResourceApplyMomentum(
        var=variable.handle,
        accum=optimizer.buffers[index].value.handle,
        lr=learning_rate,
        grad=direction,
        momentum=tf.constant(optimizer.momentum, variable.dtype),
        use_nesterov=nesterov,
    )


def _matches(pattern: str, variable: keras.Variable) -> bool:
    return any(re.search(pattern, canonical_name(text)) for text in (variable.path, variable.name))


def _check_texts(name: str, texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise InputError(f'{name} is one text. Received: {texts!r}; pass a list such as ["{texts}"].')
    if not isinstance(texts, Iterable) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} are no texts. Received: {texts!r}; pass a list of texts.")


def check_patterns(name: str, patterns: Sequence[str]) -> None:
    """Refuses what is no list of regular expressions."""
    _check_texts(name, patterns)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"{name} has no regular expression ({error}). Received: {pattern!r}.") from error
