"""Which optimizer trains, as configurations say it: `rules` has the optimizers."""

import dataclasses

from divco_tf import fields
from divco_tf.errors import InputError
from divco_tf.fields import Above0, AtLeast0
from divco_tf.models.divide import divide_weight_decay
from divco_tf.registry import did_you_mean
from divco_tf.training.optim.rules import (
    NEVER_DECAYED,
    NORM_SCALE,
    SGD,
    AdamW,
    Kept,
    Rate,
    RegularisedOptimizer,
    RMSprop,
    RMSpropTF,
    check_patterns,
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer, and how it regularises.

    Raises:
      InputError: an unknown name, a number outside its range, or a setting that the optimizer does not have.
    """

    name: str = "sgd"
    """"sgd", "rmsprop", "rmsprop_tf" or "adamw"; `SGD`, `RMSprop`, `RMSpropTF` and `AdamW` say what they do."""
    momentum: Kept = 0.9
    """Not adamw's."""
    nesterov: bool = True
    """Of sgd."""
    alpha: Kept = 0.9
    """Of rmsprop and rmsprop_tf: how much of the squared average a step keeps."""
    betas: tuple[Kept, Kept] = (0.9, 0.999)
    """Of adamw: how much of the mean and of the squared average a step keeps."""
    epsilon: Above0 | None = None
    """None: the optimizer's own, 1e-3 of rmsprop_tf, else 1e-8. sgd has none."""
    weight_decay: AtLeast0 = 0.0
    """Of the large network: coupled L2, adamw's decoupled."""
    decay_norm_scales: bool = False
    """Whether batch-norm scales are decayed too, as in most of the paper's networks; biases never are."""
    exclude_from_decay: tuple[str, ...] = ()
    """What else is not decayed: regular expressions, searched in the names of variables ("^stem", "fc.kernel")."""
    divide_weight_decay: bool = False
    """Whether each small network gets weight_decay * exp(1/S - 1), the paper's rule (section III-A)."""
    clipnorm: Above0 | None = None
    """Largest norm of one variable's gradient, the branches of a stacked one together."""
    global_clipnorm: Above0 | None = None
    """Largest norm of all gradients together."""

    def __post_init__(self) -> None:
        """Refuses what no optimizer takes."""
        fields.check(self)
        if self.name not in _OPTIMIZERS:
            raise InputError(f"Unknown optimizer. Received: {self.name}.{did_you_mean(self.name, _OPTIMIZERS)}")
        check_patterns("exclude_from_decay", self.exclude_from_decay)
        if self.clipnorm is not None and self.global_clipnorm is not None:
            raise InputError(
                f"Gradients are clipped twice. Received: clipnorm={self.clipnorm}, "
                f"global_clipnorm={self.global_clipnorm}; pass one of the two."
            )
        used = _OPTIMIZERS[self.name].settings
        of_others = {name for kind in _OPTIMIZERS.values() for name in kind.settings if name not in used}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in of_others and value != field.default:
                raise InputError(
                    f"{self.name} has no {field.name}. Received: {field.name}={value!r}; leave it out, "
                    f"{self.name} takes {', '.join(sorted(used))}."
                )

    def build(self, learning_rate: Rate, split_factor: int = 1) -> RegularisedOptimizer:
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
        kind = _OPTIMIZERS[self.name]
        settings = {name: getattr(self, name) for name in kind.settings if getattr(self, name) is not None}
        return kind(
            learning_rate,
            weight_decay=weight_decay,
            exclude_from_decay=NEVER_DECAYED if self.decay_norm_scales else (*NEVER_DECAYED, NORM_SCALE),
            exclude_patterns=self.exclude_from_decay,
            clipnorm=self.clipnorm,
            global_clipnorm=self.global_clipnorm,
            **settings,
        )


_OPTIMIZERS: dict[str, type[RegularisedOptimizer]] = {
    "sgd": SGD,
    "rmsprop": RMSprop,
    "rmsprop_tf": RMSpropTF,
    "adamw": AdamW,
}
"""By name; the `settings` of a class are fields of an `OptimizerConfig`, which are its alone."""
