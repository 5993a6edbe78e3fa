"""Weights under the names and in the layout of the authors' PyTorch networks -> a branch stack.

Names are `models.<branch>.<module>.<tensor>`; a module is our layer of the same name, or of that with a dot in front.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping

import keras
import numpy as np

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import backbone_of
from divco_tf.models.branch_stack import BranchStack
from divco_tf.registry import did_you_mean

_KINDS = {
    **{"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}
_IGNORED = "num_batches_tracked"
_VARIANCE = ".running_var"


@dataclasses.dataclass(frozen=True)
class TorchTensor:
    """A tensor of one network in a state dict: its name there, without `models.<i>.`, and our axes in its order."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]


def torch_tensors(template: keras.Model) -> list[TorchTensor]:
    """The tensors that a template's variables come from, in their order."""
    depthwise = {layer.kernel.path for layer in template.layers if isinstance(layer, keras.layers.DepthwiseConv2D)}
    tensors = []
    for variable in template.variables:
        module, kind = variable.path.lstrip(".").rsplit("/", 1)
        rank = len(variable.shape)
        # [out, in, h, w] there, [h, w, in, out] here; depthwise: [channels, 1, h, w] and [h, w, channels, 1].
        last = (rank - 1, rank - 2) if variable.path not in depthwise else (rank - 2, rank - 1)
        axes = (*last, *range(rank - 2)) if rank > 1 else (0,)
        shape = tuple(variable.shape[axis] for axis in axes)
        tensors.append(TorchTensor(f"{module}.{_KINDS[kind]}", shape, axes))
    return tensors


def import_state_dict(
    stack: BranchStack, state: Mapping[str, np.ndarray], *, unreadable: Mapping[str, str] | None = None
) -> None:
    """Writes a state dict of S networks into `stack`.

    Args:
      stack: of the same backbone, split factor and number of classes.
      state: all tensors of all branches by name; `...num_batches_tracked` counters are passed over, and so are
        the backbone's `unused_tensors`.
      unreadable: of a `TorchCheckpoint`, for reasons why an entry is missing.

    Raises:
      InputError: an entry is missing, surplus, mis-shaped, no float or not finite (named); nothing is written then.
    """
    tensors = torch_tensors(stack.network.template)
    expected = {
        f"models.{branch}.{tensor.name}": tensor.shape for branch in range(stack.split_factor) for tensor in tensors
    }
    passed_over = backbone_of(stack.spec).unused_tensors(stack.spec)
    given = {
        name: value
        for name, value in state.items()
        if not name.endswith(_IGNORED) and re.sub(r"^models\.\d+\.", "", name) not in passed_over
    }
    _check_names(stack.name, given, expected, unreadable or {})
    for name, shape in expected.items():
        _check_tensor(name, np.asarray(given[name]), shape)
    values = {}
    for tensor, variable in zip(tensors, stack.network.template.variables, strict=True):
        branches = [np.asarray(given[f"models.{branch}.{tensor.name}"]) for branch in range(stack.split_factor)]
        values[variable.path.replace("/", ".")] = np.stack([v.transpose(np.argsort(tensor.axes)) for v in branches])
    stack.assign_stacked(values)


def _check_names(
    network: str, given: Collection[str], expected: Mapping[str, tuple[int, ...]], unreadable: Mapping[str, str]
) -> None:
    missing = [name for name in expected if name not in given]
    surplus = [name for name in given if name not in expected]
    lacks = f"lacks {len(missing)} entries. Received: no {missing[0]} {expected[missing[0]]}" if missing else ""
    lacks += f" ({unreadable[missing[0]]})" if missing and missing[0] in unreadable else ""
    if surplus:
        hint = did_you_mean(surplus[0], expected)
        has = f"The state dict has {len(surplus)} entries that are no weight of {network}"
        if missing:
            raise InputError(f"{has}, such as {surplus[0]}, and {lacks}.{hint}")
        raise InputError(f"{has}. Received: {surplus[0]}.{hint}")
    if missing:
        raise InputError(f"The state dict {lacks}.")


def _check_tensor(name: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise InputError(f"An entry has another shape. Received: {name} {value.shape}; it must be {shape}.")
    if value.dtype.kind not in "fV":  # ml_dtypes' bfloat16 is a V
        raise InputError(f"An entry holds no floats. Received: {name} of {value.dtype}; float32 would work.")
    with np.errstate(over="ignore"):
        value = value.astype(np.float32, copy=False)
    if wrong := int(np.sum(~np.isfinite(value))):
        raise InputError(
            f"An entry is not finite. Received: {name}, with NaN or infinity in {wrong} of {value.size} numbers; a "
            "checkpoint of an earlier epoch would work."
        )
    if name.endswith(_VARIANCE) and (value < 0).any():
        raise InputError(f"A variance is below 0. Received: {name}, {value.min()}; the file is damaged.")
