"""Weights under the names and in the layout of the authors' PyTorch networks -> a branch stack.

Names are `models.<branch>.<module>.<tensor>`; a module is our layer of the same name. Convolutions are
[out, in / groups, h, w] there and [h, w, in / groups, out] here, linear layers [out, in] and [in, out].
"""

from collections.abc import Mapping

import keras
import numpy as np

from divco_tf.errors import InputError
from divco_tf.models.branch_stack import BranchStack
from divco_tf.registry import did_you_mean

_TENSORS = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
_STATISTICS = {"moving_mean": "running_mean", "moving_variance": "running_var"}
_IGNORED = "num_batches_tracked"


def torch_name(variable: keras.Variable) -> str:
    """The name of a template's variable in a state dict of one network, without `models.<i>.`."""
    module, tensor = variable.path.rsplit("/", 1)
    return f"{module}.{ {**_TENSORS, **_STATISTICS}[tensor] }"


def torch_shape(variable: keras.Variable) -> tuple[int, ...]:
    """The shape of the same tensor in PyTorch's layout."""
    shape = tuple(variable.shape)
    return (shape[-1], shape[-2], *shape[:-2]) if len(shape) > 1 else shape


def import_state_dict(stack: BranchStack, state: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict of S networks into `stack`.

    Args:
      stack: of the same backbone, split factor and number of classes.
      state: all tensors of all branches by name; `...num_batches_tracked` counters are passed over.

    Raises:
      InputError: an entry is missing, surplus or mis-shaped (named); nothing is written then.
    """
    expected = {
        f"models.{branch}.{torch_name(variable)}": torch_shape(variable)
        for branch in range(stack.split_factor)
        for variable in stack.network.template.variables
    }
    given = {name: value for name, value in state.items() if not name.endswith(_IGNORED)}
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
    for variable, stacked in zip(stack.network.template.variables, stack._stacked_in_order(), strict=True):
        values = [
            _from_torch(np.asarray(given[f"models.{branch}.{torch_name(variable)}"]))
            for branch in range(stack.split_factor)
        ]
        stacked.assign(np.stack(values))


def _from_torch(value: np.ndarray) -> np.ndarray:
    return np.moveaxis(value, (1, 0), (-2, -1)) if value.ndim > 1 else value
