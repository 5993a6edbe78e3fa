import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.models import layers
from divco_tf.models.backbones.efficientnet import EfficientNetSpec
from divco_tf.models.backbones.efficientnet_cifar import CifarEfficientNetSpec
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.branch_stack import build
from divco_tf.models.divide import divide
from divco_tf.models.layers import basic
from divco_tf.models.template import build_template
from tests import tiny
from tests.models import goldens
from tests.models.goldens import RECORDS, TOLERANCE, golden_difference, golden_logits, single_branch
from tests.models.siblings import SIBLINGS

NAMES = [name for name in BACKBONES.names() if name.startswith("efficientnet_b")]
widths = st.floats(0.05, 4.0)


def test_every_published_efficientnet_has_a_name():
    assert sorted([*(f"efficientnet_b{n}" for n in range(9)), *(f"efficientnet_b{n}_cifar" for n in range(8))]) == NAMES


@given(widths, st.sampled_from([4, 8]), st.integers(12, 1280))
def test_scaled_channels_are_multiples_and_hardly_fewer(width, divisor, channels):
    scaled = EfficientNetSpec(width=width, divisor=divisor).scaled(channels)
    assert scaled % divisor == 0
    assert 0.9 * channels * width <= scaled < max(channels * width + divisor, divisor + 1)


@given(widths, widths, st.sampled_from([4, 8]), st.integers(12, 1280))
def test_a_wider_network_has_nowhere_fewer_channels(width, other, divisor, channels):
    narrow, wide = (EfficientNetSpec(width=w, divisor=divisor) for w in sorted((width, other)))
    assert narrow.scaled(channels) <= wide.scaled(channels)


@pytest.mark.parametrize("name", NAMES)
def test_channels_are_divided_by_the_papers_table(name):
    spec = BACKBONES.get(name).spec
    assert spec.channels == (16, 24, 40, 80, 112, 192, 320)
    two, four = divide(spec, 2), divide(spec, 4)
    assert (two.stem, two.channels, two.head) == (24, (12, 16, 24, 56, 80, 136, 224), 920)
    assert (four.stem, four.channels, four.head) == (16, (12, 16, 20, 40, 56, 96, 160), 640)
    assert (spec.divisor, two.divisor, four.divisor) == (8, 4, 4)
    assert four.dropout == spec.dropout / 2 and four.block_dropout == spec.block_dropout / 2
    assert [dataclasses.replace(block, filters=0) for block in four.all_blocks()] == [
        dataclasses.replace(block, filters=0) for block in spec.all_blocks()
    ]


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b3_cifar"])
@pytest.mark.parametrize("split_factor", [3, 8])
def test_a_split_factor_without_a_table_is_refused(name, split_factor):
    with pytest.raises(InputError, match=rf"stem cannot .*Received: {split_factor}; 32 divides by 1, 2, 4\.") as error:
        build(name, split_factor=split_factor, num_classes=10, input_shape=(32, 32, 3))
    assert tiny.one_line(error.value, says="copies=")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"blocks": (1, 2)}, "tuples of one length"),
        ({"strides": [1, 2, 2, 2, 1, 2, 1]}, "tuples of one length"),
        ({"kernel_sizes": (3, 3, 4, 3, 5, 5, 3)}, "kernels odd"),
        ({"width": 0.0}, "no positive size"),
        ({"depth": -1.0}, "no positive size"),
        ({"depth": float("nan")}, "no positive size"),
        ({"divisor": 0}, "divisor"),
        ({"channels": (16, 0, 40, 80, 112, 192, 320)}, "channels"),
    ],
    ids=str,
)
def test_a_spec_checks_itself(fields, says):
    with pytest.raises(InputError) as error:
        CifarEfficientNetSpec(**fields)
    assert tiny.one_line(error.value, says=says)


@pytest.mark.parametrize(("kind", "rates"), [("efficientnet", [0.4 * 2 / 3]), ("efficientnet_cifar", [0.2, 0.4])])
def test_residual_branches_are_dropped_the_more_the_deeper(kind, rates):
    """The first block of three has index 0, and a rate of 0, in one family; stage 1 of 2 in the other."""
    spec, input_shape = SIBLINGS[kind]
    spec = dataclasses.replace(spec, block_dropout=0.4)
    template = build_template(spec, num_classes=3, input_shape=input_shape)
    dropping = [layer for layer in template.layers if isinstance(layer, (layers.DropPath, layers.ChannelDropout))]
    assert [layer.rate for layer in dropping] == pytest.approx(rates)
    assert {type(layer) for layer in dropping} == {layers.DropPath if kind == "efficientnet" else layers.ChannelDropout}


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("side", [6, 7])
def test_depthwise_convolution_is_each_channel_by_itself(padding, stride, kernel_size, side):
    rng = np.random.default_rng(0)
    image = keras.Input((side, side, 3))
    model = keras.Model(image, layers.depthwise_conv(image, kernel_size, stride=stride, padding=padding, name="d"))
    kernel = rng.standard_normal((kernel_size, kernel_size, 3, 1)).astype(np.float32)
    model.set_weights([kernel])
    pixels = rng.standard_normal((2, side, side, 3)).astype(np.float32)
    size = -(-side // stride)
    before = kernel_size // 2
    if padding == "same":  # of all that is needed, the smaller half in front
        before = max((size - 1) * stride + kernel_size - side, 0) // 2
    padded = np.pad(pixels, ((0, 0), (before, kernel_size), (before, kernel_size), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size, kernel_size), (1, 2))
    expected = np.einsum("bijchw,hwc->bijc", windows[:, ::stride, ::stride][:, :size, :size], kernel[..., 0])
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-4, atol=1e-5)


def test_any_padding_but_the_two_is_refused():
    for make in (
        lambda x: layers.conv(x, 4, 3, padding="valid", name="c"),
        lambda x: layers.depthwise_conv(x, 3, padding="valid", name="d"),
    ):
        with pytest.raises(InputError, match=r"Received: 'valid'"):
            make(keras.Input((8, 8, 3)))


@pytest.mark.parametrize("key", ["efficientnetb0__imagenet__S4__q75", "efficientnetb0__cifar10__S4"])
def test_the_other_familys_padding_moves_the_logits(key, monkeypatch):
    own = basic.padded

    def other(x, kernel_size, *, stride, padding, name):
        padding = {"same": "symmetric", "symmetric": "same"}[padding]
        return own(x, kernel_size, stride=stride, padding=padding, name=name)

    monkeypatch.setattr(basic, "padded", other)
    record = RECORDS[key.removesuffix("__q75")]
    golden = next(golden for golden in record["golden"] if golden["key"] == key)
    with goldens.frugally():
        stack = single_branch(goldens.backbone_name(record), 4, record["num_classes"], golden["input_hw"])
        assert golden_difference(golden_logits(stack, golden["norm_scale_lo"]), golden) > 10 * TOLERANCE
