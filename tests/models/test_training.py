"""Every family trains: on CPU, plain and under XLA."""

import functools
import json
import re

import keras
import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.template import build_template
from tests.models.one_step import gradients
from tests.models.siblings import SIBLINGS, sibling_stack

# XLA's compiling takes most of the time, so of families with the same kinds of layers one is compiled.
COMPILED = ("densenet", "shake_shake", "efficientnet", "efficientnet_cifar", "resnest", "se_resnet")


@pytest.fixture(scope="module", params=SIBLINGS)
def trained(request) -> tuple[BranchStack, tuple[list, list]]:
    stack = sibling_stack(request.param)
    return stack, gradients(stack, jit=False)


def test_every_weight_of_every_branch_has_a_gradient(trained):
    stack, (gradients, _) = trained
    for variable, gradient in zip(stack.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        for branch in gradient.numpy():
            assert np.all(np.isfinite(branch)), variable.name
            assert np.any(branch), variable.name


def test_every_statistic_moves(trained):
    stack, (_, updated) = trained
    for variable, value in zip(stack.non_trainable_variables, updated, strict=True):
        assert np.all(np.any(variable.numpy() != value.numpy(), axis=1)), variable.name


@pytest.mark.parametrize(
    "trained",
    [pytest.param(name, marks=() if name in COMPILED else pytest.mark.slow) for name in SIBLINGS],
    indirect=True,
)
def test_xla_trains_alike(trained):
    stack, plain = trained
    compiled = gradients(stack, jit=True)
    for kind, expected in zip(compiled, plain, strict=True):
        largest = max(float(np.max(np.abs(value))) for value in expected)
        for value, reference in zip(kind, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=2e-3, atol=2e-4 * largest)


def test_every_kind_of_layer_is_among_those_that_xla_compiles():
    def kinds(names) -> set[type]:
        return {type(layer) for name in names for layer in template(name).layers}

    @functools.cache
    def template(name: str) -> keras.Model:
        spec, input_shape = SIBLINGS[name]
        return build_template(spec, num_classes=3, input_shape=input_shape)

    assert kinds(COMPILED) == kinds(SIBLINGS)


def test_a_branch_alone_answers_as_in_its_stack_also_when_saved(trained, tmp_path):
    stack, _ = trained
    views = np.random.default_rng(1).standard_normal((2, *stack.view_shape)).astype(np.float32)
    branch = stack.branch(1)
    branch.save(tmp_path / "m.keras")
    for model in (branch, keras.models.load_model(tmp_path / "m.keras")):
        np.testing.assert_allclose(model(views), stack(views)[:, 1], rtol=1e-4, atol=1e-6)


def test_a_spec_survives_json(trained):
    stack, _ = trained
    again = BranchStack.from_config(json.loads(json.dumps(stack.get_config())))
    assert again.spec == stack.spec and type(again.spec) is type(stack.spec)


@pytest.mark.parametrize("side", [1, 2, 31])
@pytest.mark.parametrize("name", SIBLINGS)
def test_any_image_size_is_taken(name, side):
    if name == "densenet" and side < 4:
        with pytest.raises(InputError, match=f"halves images twice. Received: {side}x{side + 2} pixels"):
            sibling_stack(name, copies=1, input_shape=(side, side + 2, 3))
        return
    stack = sibling_stack(name, copies=1, input_shape=(side, side + 2, 3))
    assert np.all(np.isfinite(stack(np.ones((1, side, side + 2, 3), np.float32))))


def test_every_family_has_a_sibling():
    specs = {type(entry.spec): type(entry.spec).__module__ for entry in BACKBONES.entries()}
    # Wrapped networks of keras.applications and keras-cv have tests of their own (tests/models/wrapped.py).
    families = {spec for spec, module in specs.items() if re.match(r"divco_tf\.models\.backbones\.(?!keras_)", module)}
    assert {type(spec) for spec, _ in SIBLINGS.values()} == families
