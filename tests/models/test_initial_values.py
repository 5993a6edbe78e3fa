"""Every family starts as the authors' did: each kind of weight has the spread that the reference gives it."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.torch_weights import torch_tensors
from tests.models.siblings import SIBLINGS, sibling_stack

Rule = Callable[[tuple[int, ...]], tuple[str, float]]
"""Shape of the layer's kernel, [out, in, ...] -> a distribution and its standard deviation, bound or value."""


def fan_out_normal(shape: tuple[int, ...]) -> tuple[str, float]:
    return "normal", math.sqrt(2 / (math.prod(shape[2:]) * shape[0]))


def fan_in_normal(shape: tuple[int, ...]) -> tuple[str, float]:
    return "normal", math.sqrt(2 / math.prod(shape[1:]))


def fan_in_uniform(shape: tuple[int, ...]) -> tuple[str, float]:
    return "uniform", 1 / math.sqrt(math.prod(shape[1:]))


def classes_uniform(shape: tuple[int, ...]) -> tuple[str, float]:
    return "uniform", 1 / math.sqrt(shape[0])


def small_normal(shape: tuple[int, ...]) -> tuple[str, float]:
    return "normal", 1e-3


def zero(shape: tuple[int, ...]) -> tuple[str, float]:
    return "constant", 0.0


@dataclasses.dataclass(frozen=True)
class Start:
    """A family's initial values: of convolutions and of linear layers; `zero_scale` is the last norm of a block."""

    kernel: Rule = fan_out_normal
    bias: Rule = zero
    head: Rule = small_normal
    head_bias: Rule = zero
    zero_scale: str | None = None


RESNET, SENET = Start(zero_scale=".bn3.weight"), Start()
STARTS: dict[str, Start] = {
    "densenet": Start(kernel=fan_in_normal, head=fan_in_uniform),
    "efficientnet": Start(fan_in_uniform, bias=fan_in_uniform, head=fan_in_uniform, head_bias=fan_in_uniform),
    "efficientnet_cifar": Start(head=classes_uniform),
    "pyramidnet": Start(head=fan_in_uniform, head_bias=fan_in_uniform),
    "resnest": Start(bias=fan_in_uniform, head=fan_in_uniform, head_bias=fan_in_uniform),
    "resnexst": SENET,
    "resnet": RESNET,
    "resnet_cifar": RESNET,
    "resnext": RESNET,
    "resnext_cifar": RESNET,
    "se_resnet": SENET,
    "senet": SENET,
    "senet_cifar": SENET,
    "shake_shake": Start(bias=fan_in_uniform),
    "wide_resnet50": RESNET,
    "wide_resnet101": RESNET,
    "wide_resnet_cifar": Start(zero_scale=".bn2.weight"),
}


def rules(stack: BranchStack, start: Start) -> dict[str, tuple[str, float]]:
    """What each tensor of a branch should look like, by its name in the authors' networks."""
    tensors = torch_tensors(stack.network.template)
    kernels = {tensor.name.rsplit(".", 1)[0]: tensor.shape for tensor in tensors if len(tensor.shape) > 1}
    expected = {}
    assert start.zero_scale is None or any(tensor.name.endswith(start.zero_scale) for tensor in tensors)
    for tensor in tensors:
        layer, kind = tensor.name.rsplit(".", 1)
        if layer in kernels:
            linear = len(kernels[layer]) == 2
            rule = {("weight", False): start.kernel, ("weight", True): start.head, ("bias", False): start.bias}
            expected[tensor.name] = rule.get((kind, linear), start.head_bias)(kernels[layer])
        elif kind == "weight":
            zeroed = start.zero_scale is not None and tensor.name.endswith(start.zero_scale)
            expected[tensor.name] = "constant", 0.0 if zeroed else 1.0
        else:
            expected[tensor.name] = "constant", 1.0 if kind == "running_var" else 0.0
    return expected


def check(values: np.ndarray, distribution: str, size: float) -> None:
    """Mean, spread and range, each within five standard errors."""
    if distribution == "constant":
        assert np.all(values == size)
        return
    bounded = distribution == "uniform"
    spread = size / math.sqrt(3) if bounded else size
    relative_error = math.sqrt((0.2 if bounded else 0.5) / values.size)  # of a standard deviation
    assert abs(values.std() / spread - 1) < 5 * relative_error + 2 / values.size
    assert abs(values.mean()) < 5 * spread / math.sqrt(values.size)
    assert (np.abs(values).max() <= size) if bounded else (values.size < 200 or np.abs(values).max() > 2 * size)


@pytest.mark.parametrize("name", SIBLINGS)
def test_weights_start_as_the_references(name):
    stack = sibling_stack(name, copies=4, num_classes=50, seed=5)
    expected = rules(stack, STARTS[name])
    tensors = torch_tensors(stack.network.template)
    stacked = stack.stacked_values()
    for tensor, variable in zip(tensors, stack.network.template.variables, strict=True):
        distribution, size = expected[tensor.name]
        values = stacked[variable.path.replace("/", ".")]
        check(values, distribution, size)
        if distribution != "constant":
            assert len({branch.tobytes() for branch in values}) == 4, tensor.name
