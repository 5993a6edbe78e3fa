"""Losses as pure functions of tensors, one value an example; and the ways from S branches to one prediction.

The shapes are those of the library: logits `[B, S, K]` (batch, branch, class), labels `[B, K]`, ensemble
`[B, K]`. Everything is computed in float32 at least (float64 stays float64), and neither values nor
gradients overflow for logits up to 65504 in size, the largest of float16: probabilities are only ever
handled beside their logarithms, which `log_softmax` keeps finite where the probability itself is 0.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from divco_tf import fields
from divco_tf.errors import InputError
from divco_tf.fields import AtLeast0, Positive, Whole
from divco_tf.registry import did_you_mean
from divco_tf.training.warmup import check_warmup, warmup_steps

_BRANCH_AXIS = 1


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of every branch with the same labels, in nats.

    Args:
      labels: probabilities `[B, K]`: one-hot, smoothed or mixed.
      logits: `[B, S, K]`.

    Returns:
      `[B, S]`. The paper's classification loss is the sum over branches, not their mean (section III-B).

    Raises:
      InputError: shapes that do not fit.
    """
    logits = _branch_logits(logits)
    labels = tf.cast(tf.convert_to_tensor(labels), logits.dtype)
    expected = tf.TensorShape([logits.shape[0], logits.shape[2]])
    if not labels.shape.is_compatible_with(expected):
        raise InputError(
            f"Labels and logits do not fit. Received: labels {_shown(labels)}, logits {_shown(logits)}; "
            "pass labels [B, K] (one-hot or soft) and logits [B, S, K]."
        )
    return -tf.reduce_sum(labels[:, tf.newaxis, :] * tf.nn.log_softmax(logits), axis=-1)


def smooth_labels(labels: tf.Tensor, smoothing: float) -> tf.Tensor:
    """(1 - smoothing) * labels + smoothing / K (Szegedy et al., arXiv 1512.00567, section 7).

    Smoothing and mixing commute, so smoothed labels may be mixed and mixed ones smoothed.

    Args:
      labels: probabilities `[..., K]`, floating point.
      smoothing: share of the probability that is spread over all classes, 0 <= smoothing < 1.

    Raises:
      InputError: a smoothing outside that range, or labels that are class numbers.
    """
    if not 0 <= smoothing < 1:
        raise InputError(f"Label smoothing is outside its range. Received: {smoothing}; pass 0 or more, and below 1.")
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_floating or labels.shape.rank == 0:
        raise InputError(
            f"Only probabilities can be smoothed. Received: {labels.dtype.name} {_shown(labels)}; "
            "pass floating-point labels [B, K], for instance tf.one_hot(classes, K)."
        )
    if smoothing == 0:
        return labels
    num_classes = tf.cast(tf.shape(labels)[-1], labels.dtype)
    return (1 - smoothing) * labels + smoothing / num_classes


def jensen_shannon(logits: tf.Tensor) -> tf.Tensor:
    """Jensen-Shannon divergence between the branches: H(mean of p_i) - mean of H(p_i), in nats.

    The co-training loss of the paper (arXiv 2011.14660, section III-B). It lies between 0 (all branches
    predict the same) and log(S), and it is 0 for S=1. Computed as the mean over branches of
    KL(p_i || mean), which is the same and has no difference of large sums.

    Args:
      logits: `[B, S, K]`.

    Returns:
      `[B]`.

    Raises:
      InputError: logits of another shape or no floating-point numbers.
    """
    log_p = tf.nn.log_softmax(_branch_logits(logits))
    branches = tf.cast(tf.shape(log_p)[_BRANCH_AXIS], log_p.dtype)
    log_mean = tf.reduce_logsumexp(log_p, axis=_BRANCH_AXIS, keepdims=True) - tf.math.log(branches)
    divergence = tf.reduce_sum(tf.exp(log_p) * (log_p - log_mean), axis=-1)
    return tf.reduce_mean(divergence, axis=_BRANCH_AXIS)


def pairwise_kl(logits: tf.Tensor) -> tf.Tensor:
    """Sum over ordered pairs of branches of KL(p_j || p_i) / (S - 1), in nats; 0 for S=1.

    Every branch learns from the others as from teachers (deep mutual learning, arXiv 1706.00384): the
    target p_j takes no gradient. Unlike the Jensen-Shannon divergence it has no upper bound and grows
    with S.

    Args:
      logits: `[B, S, K]`.

    Returns:
      `[B]`.

    Raises:
      InputError: logits of another shape or no floating-point numbers.
    """
    log_p = tf.nn.log_softmax(_branch_logits(logits))
    target = tf.stop_gradient(log_p)
    # The sum over i of KL(p_j || p_i) is S * sum_k p_j (log p_j - mean_i log p_i): no loop over pairs. The
    # pair i = j adds nothing, neither to the value nor to the gradient.
    mean_log_p = tf.reduce_mean(log_p, axis=_BRANCH_AXIS, keepdims=True)
    divergence = tf.reduce_sum(tf.exp(target) * (target - mean_log_p), axis=[_BRANCH_AXIS, -1])
    branches = tf.cast(tf.shape(log_p)[_BRANCH_AXIS], log_p.dtype)
    return divergence * branches / tf.maximum(branches - 1, 1)


def no_cotraining(logits: tf.Tensor) -> tf.Tensor:
    """0: branches that do not know each other, an independent ensemble.

    Args:
      logits: `[B, S, K]`.

    Returns:
      `[B]`.

    Raises:
      InputError: logits of another shape or no floating-point numbers.
    """
    return tf.zeros_like(_branch_logits(logits)[:, 0, 0])


COTRAINING_LOSSES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "js": jensen_shannon,
    "kl": pairwise_kl,
    "none": no_cotraining,
}
"""Co-training losses by name: logits `[B, S, K]` -> `[B]`."""


def cotraining_loss(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The co-training loss called `name`, a function of logits `[B, S, K]` with one value an example.

    Raises:
      InputError: nothing is called so.
    """
    if name not in COTRAINING_LOSSES:
        raise InputError(f"Unknown co-training loss. Received: {name}.{did_you_mean(name, COTRAINING_LOSSES)}")
    return COTRAINING_LOSSES[name]


def _mean_logits(logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(logits, axis=_BRANCH_AXIS)


def _max_logits(logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(logits, axis=_BRANCH_AXIS)


def _mean_probabilities(logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.softmax(logits), axis=_BRANCH_AXIS)


def _max_probabilities(logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(tf.nn.softmax(logits), axis=_BRANCH_AXIS)


def _normalise(scores: tf.Tensor) -> tf.Tensor:
    return scores / tf.reduce_sum(scores, axis=-1, keepdims=True)


ENSEMBLING: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[tf.Tensor], tf.Tensor]]] = {
    "mean_logits": (_mean_logits, tf.nn.softmax),
    "max_logits": (_max_logits, tf.nn.softmax),
    "mean_probabilities": (_mean_probabilities, tf.identity),
    "max_probabilities": (_max_probabilities, _normalise),
}
"""Ways to ensemble by name: (logits `[B, S, K]` -> scores `[B, K]`, scores -> probabilities)."""

# An alias: prod_i p_i^(1/S), normalised, is the softmax of the mean logits; spelt out it would underflow.
ENSEMBLING["geometric_mean"] = ENSEMBLING["mean_logits"]


def ensemble(logits: tf.Tensor, method: str = "mean_logits") -> tf.Tensor:
    """One score a class out of S branches; the largest is the prediction.

    Args:
      logits: `[B, S, K]`.
      method: a name in `ENSEMBLING`. "mean_logits", also called "geometric_mean" (of the probabilities), and
        "max_logits" score by logits, "mean_probabilities" and "max_probabilities" (not normalised) by probabilities.

    Returns:
      `[B, K]`, float32 or float64.

    Raises:
      InputError: logits of another shape, or an unknown method.
    """
    score, _ = _ensembling(method)
    return score(_branch_logits(logits))


def ensemble_probabilities(logits: tf.Tensor, method: str = "mean_logits") -> tf.Tensor:
    """The same prediction as `ensemble`, as probabilities `[B, K]` that sum to 1.

    Raises:
      InputError: logits of another shape, or an unknown method.
    """
    score, to_probabilities = _ensembling(method)
    return to_probabilities(score(_branch_logits(logits)))


def _ensembling(method: str) -> tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[tf.Tensor], tf.Tensor]]:
    if method not in ENSEMBLING:
        raise InputError(f"Unknown way to ensemble. Received: {method}.{did_you_mean(method, ENSEMBLING)}")
    return ENSEMBLING[method]


def _branch_logits(logits: tf.Tensor) -> tf.Tensor:
    logits = tf.convert_to_tensor(logits)
    if logits.shape.rank not in (None, 3) or not logits.dtype.is_floating:
        raise InputError(
            f"Logits have the wrong shape or type. Received: {logits.dtype.name} {_shown(logits)}; "
            "pass floating-point logits [B, S, K] (batch, branch, class)."
        )
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def _shown(tensor: tf.Tensor) -> str:
    return str(tensor.shape)


@dataclasses.dataclass(frozen=True)
class CoTraining:
    """The co-training loss and its weight over a run (arXiv 2011.14660, section III-B).

    Raises:
      InputError: an unknown loss, or a number outside its range.
    """

    loss: str = "js"
    """A name in `divco_tf.training.losses.COTRAINING_LOSSES`."""
    weight: AtLeast0 = 0.5
    """The weight after the ramp; 0 trains branches that do not know each other."""
    warmup_epochs: AtLeast0 = 0
    """Length of the ramp from 0: branches that have learnt nothing yet have nothing to teach."""
    warmup_steps: Whole | None = None
    """The same in steps, in place of epochs, rising at every step."""
    floor: AtLeast0 = 0.005
    """The ramp starts at this instead of 0, as the reference's does, or at `weight` where that is less."""
    per_step: bool = False
    """Whether the ramp rises at every step, or at every epoch as the reference's does."""

    def __post_init__(self) -> None:
        """Refuses what no run can follow."""
        fields.check(self)
        cotraining_loss(self.loss)
        check_warmup(self.warmup_epochs, self.warmup_steps)

    def warmup(self, steps_per_epoch: int) -> float:
        """The length of the ramp in steps."""
        return warmup_steps(self.warmup_epochs, self.warmup_steps, steps_per_epoch=steps_per_epoch)

    def weight_at(self, step: tf.Tensor | int, *, steps_per_epoch: int) -> tf.Tensor:
        """The weight of the update that comes after `step` updates, float32 scalar.

        Raises:
          InputError: no positive whole number of steps an epoch.
        """
        steps_per_epoch = fields.checked(steps_per_epoch, Positive, "steps_per_epoch")
        if not self.warmup_epochs and not self.warmup_steps:
            return tf.constant(self.weight, tf.float32)
        steps = tf.cast(tf.convert_to_tensor(step), tf.float64)
        if self.warmup_steps:
            done, length = steps, self.warmup_steps
        else:
            done = steps / steps_per_epoch if self.per_step else steps // steps_per_epoch
            length = self.warmup_epochs
        ramp = tf.maximum(self.weight * done / length, self.floor)
        return tf.cast(tf.minimum(ramp, self.weight), tf.float32)
