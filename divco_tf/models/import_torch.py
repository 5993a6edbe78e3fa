"""Weights under the names and in the layout of the authors' PyTorch networks -> a branch stack.

Names are `models.<branch>.<module>.<tensor>`; a module is our layer of the same name, or of that with a dot in front.
"""

import dataclasses
import re
from collections.abc import Mapping

import keras
import numpy as np

from divco_tf.errors import InputError
from divco_tf.models.backbones import backbone_of
from divco_tf.models.branch_stack import BranchStack
from divco_tf.registry import did_you_mean

_KINDS = {
    **{"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}
_IGNORED = "num_batches_tracked"


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


def import_state_dict(stack: BranchStack, state: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict of S networks into `stack`.

    Args:
      stack: of the same backbone, split factor and number of classes.
      state: all tensors of all branches by name; `...num_batches_tracked` counters are passed over, and so are
        the backbone's `unused_tensors`.

    Raises:
      InputError: an entry is missing, surplus or mis-shaped (named); nothing is written then.
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
    if missing := [name for name in expected if name not in given]:
        raise InputError(
            f"The state dict lacks {len(missing)} entries. Received: no {missing[0]} {expected[missing[0]]}."
        )
    if surplus := [name for name in given if name not in expected]:
        raise InputError(
            f"The state dict has {len(surplus)} entries that are no weight of {stack.name}. "
            f"Received: {surplus[0]}.{did_you_mean(surplus[0], expected)}"
        )
    for name, shape in expected.items():
        if tuple(np.shape(given[name])) != shape:
            raise InputError(
                f"An entry has another shape. Received: {name} {np.shape(given[name])}; it must be {shape}."
            )
    values = {}
    for tensor, variable in zip(tensors, stack.network.template.variables, strict=True):
        branches = [np.asarray(given[f"models.{branch}.{tensor.name}"]) for branch in range(stack.split_factor)]
        values[variable.path.replace("/", ".")] = np.stack([v.transpose(np.argsort(tensor.axes)) for v in branches])
    stack.assign_stacked(values)
