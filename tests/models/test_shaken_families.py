"""PyramidNet, Shake-Shake, DenseNet: what the golden tests do not see of their rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.models import layers
from divco_tf.models.backbones.densenet import DenseNetSpec, thin
from divco_tf.models.backbones.pyramidnet import PyramidNetSpec
from divco_tf.models.backbones.shake_shake import ShakeShakeSpec, unused_tensors
from divco_tf.models.branch_stack import build
from divco_tf.models.divide import divide
from divco_tf.models.template import build_template
from divco_tf.models.torch_weights import import_state_dict, torch_tensors
from tests import tiny
from tests.models import goldens
from tests.models.siblings import SIBLINGS, sibling_stack


@given(st.sampled_from([11, 20, 164, 272]), st.floats(0, 1000), st.integers(1, 64))
def test_a_pyramid_widens_to_its_end_by_steps_that_differ_by_one(depth, widening, split_factor):
    spec = divide(PyramidNetSpec(depth=depth, widening=widening), split_factor)
    widths = [16, *spec.widths()]
    assert len(widths) - 1 == (depth - 2) // 3
    assert abs(widths[-1] - 16 - widening / np.sqrt(split_factor)) <= 0.5 + 1e-6
    assert np.ptp(np.diff(widths)) <= 1 + (widening / len(widths) < 1)


def test_widths_on_half_a_channel_round_to_even():
    widths = PyramidNetSpec(depth=164, widening=135.0).widths()  # 18.5, 21, 23.5, 26, 28.5, ...
    assert widths[:5] == [18, 21, 24, 26, 28]


@pytest.mark.parametrize(("split_factor", "growth"), [(2, 28), (3, 23), (4, 20), (8, 14), (16, 10), (1600, 1)])
def test_growth_rates_shrink_by_the_root(split_factor, growth):
    assert thin(40, split_factor) == growth


@pytest.mark.parametrize(("split_factor", "width"), [(2, 64), (4, 48), (8, 32), (16, 24)])
def test_shake_shakes_widths_are_the_published_ones(split_factor, width):
    assert divide(ShakeShakeSpec(depth=26, width=96), split_factor).width == width


@pytest.mark.parametrize("name", ["pyramidnet164", "densenet190"])
def test_where_the_paper_has_a_formula_any_split_factor_divides(name):
    stack = build(name, split_factor=3, num_classes=3, input_shape=(8, 8, 3), depth=20 if "pyramid" in name else 16)
    assert stack(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, 3, 3)


REFUSED = [
    (lambda: PyramidNetSpec(depth=165, widening=1.0), "depth is 9 n + 2"),
    (lambda: PyramidNetSpec(depth=20, widening=-1.0), "widening is negative"),
    (lambda: DenseNetSpec(depth=191, growth=1), "depth is 6 n + 4"),
    (lambda: divide(DenseNetSpec(depth=190, growth=40), 1601), "growth rate is below 1"),
    (lambda: ShakeShakeSpec(depth=27, width=96), "depth is 6 n + 2"),
    (lambda: ShakeShakeSpec(depth=26, width=1), "width is below 2"),
    (lambda: divide(ShakeShakeSpec(depth=26, width=96), 3), "96 divides by 1, 2, 4, 8, 16"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_other_sizes_are_refused(make, says):
    with pytest.raises(InputError) as error:
        make()
    assert tiny.one_line(error.value, says=says)


@pytest.mark.parametrize("name", ["densenet", "pyramidnet"])
def test_shake_drop_rises_from_block_to_block_and_is_left_out_at_0(name):
    spec, input_shape = SIBLINGS[name]
    for final in (0.5, 0.0):
        changed = type(spec)(**{**vars(spec), "shake_drop": final})
        template = build_template(changed, num_classes=3, input_shape=input_shape)
        rates = [layer.rate for layer in template.layers if isinstance(layer, layers.ShakeDrop)]
        assert rates == pytest.approx([final * (index + 1) / 3 for index in range(3)] if final else [])


def test_the_authors_shake_shake_has_no_other_tensors_than_ours_and_the_unused():
    spec = ShakeShakeSpec(depth=26, width=96)
    unused = unused_tensors(spec)
    shapes = goldens.state_shapes("shake_resnet26_2x96d__cifar10__S1")
    assert set(unused) <= set(shapes)
    trained = [name for name in unused if "running" not in name]
    assert len(trained) == 36
    assert sum(int(np.prod(shapes[name])) for name in trained) == 584_640


def test_importing_passes_over_the_unused_tensors_only():
    stack = sibling_stack("shake_shake", copies=1)
    rng = np.random.default_rng(0)
    state = {
        f"models.0.{tensor.name}": rng.random(tensor.shape, np.float32)
        for tensor in torch_tensors(stack.network.template)
    }
    extra = {f"models.0.{name}": np.zeros(1) for name in unused_tensors(stack.spec)}
    assert extra
    assert not set(extra) & set(state)
    import_state_dict(stack, state | extra)
    with pytest.raises(InputError, match=r"no weight of .*Received: models.0.stage_1.0.shortcut.conv3.weight"):
        import_state_dict(stack, state | {"models.0.stage_1.0.shortcut.conv3.weight": np.zeros(1)})
    del state["models.0.stage_2.0.shortcut.conv1.weight"]
    with pytest.raises(InputError, match=r"lacks 1 entries. Received: no models.0.stage_2.0.shortcut.conv1.weight"):
        import_state_dict(stack, state)
