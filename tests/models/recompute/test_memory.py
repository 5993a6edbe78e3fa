"""Estimates of memory follow what is asked for, and refuse what is no training step."""

import pytest

from divco_tf.errors import InputError
from divco_tf.models.recompute.memory import step_memory
from divco_tf.models.template import build_template
from tests.models.siblings import SIBLINGS
from tests.tiny import TinySpec, one_line


@pytest.fixture(scope="module", params=["wide_resnet_cifar", "densenet", "senet"])
def template(request):
    spec, input_shape = SIBLINGS[request.param]
    return build_template(spec, num_classes=3, input_shape=input_shape)


def test_activations_grow_with_images_and_branches_and_shrink_with_micro_batches(template):
    one = step_memory(template, batch_size=8)
    assert step_memory(template, batch_size=16).activations == 2 * one.activations
    assert step_memory(template, batch_size=8, split_factor=4).activations == 4 * one.activations
    assert step_memory(template, batch_size=8, micro_batches=4).activations == one.activations // 4
    assert step_memory(template, batch_size=8, split_factor=4, branches_in_turn=True).activations == one.activations


def test_recomputation_keeps_less(template):
    sizes = {"batch_size": 8, "split_factor": 4}
    plain, remat = step_memory(template, **sizes), step_memory(template, **sizes, remat=True)
    both = step_memory(template, **sizes, remat=True, branches_in_turn=True)
    assert both.activations < remat.activations < plain.activations
    assert both.gradients == remat.gradients == plain.gradients
    assert both.state == remat.state == plain.state


def test_a_tiny_network_is_counted_by_hand():
    template = build_template(TinySpec(), num_classes=3, input_shape=(8, 8, 3))
    feature = 4 * 8 * 8 * 8  # the convolution's output, kept by the norm; the ReLU's is kept too
    pooled = 4 * 8
    traced = 4 * 8 * 8 * 3  # by a layer that is not known
    memory = step_memory(template, batch_size=1, slots=2)
    assert memory.activations == traced + 2 * feature + pooled + 2 * feature
    weights = 3 * 3 * 3 * 8 + 2 * 8 + 8 * 3 + 3
    assert memory.state == 4 * (3 * weights + 2 * 8)
    assert memory.gradients == 4 * weights
    assert memory.step == 4 * weights + traced + 4 * feature + pooled
    assert memory.total == 4 * (4 * weights + 2 * 8) + traced + 4 * feature + pooled
    assert step_memory(template, batch_size=1, split_factor=4).gradients == 4 * memory.gradients
    assert step_memory(template, batch_size=2, micro_batches=2).gradients == 2 * memory.gradients  # and their sum


def test_half_precision_keeps_half():
    whole, half = (
        build_template(TinySpec(), num_classes=3, input_shape=(8, 8, 3), precision=precision)
        for precision in ("float32", "mixed_bfloat16")
    )
    assert step_memory(half, batch_size=8).activations < 0.6 * step_memory(whole, batch_size=8).activations


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size is no number from 1"),
        ({"batch_size": 8, "micro_batches": 3}, "micro_batches=3 does not divide"),
        ({"batch_size": 8, "split_factor": 1.5}, "split_factor is no number from 1"),
    ],
)
def test_what_is_no_step_is_refused_in_one_line(template, options, says):
    with pytest.raises(InputError) as caught:
        step_memory(template, **options)
    assert one_line(caught.value, says=says)
