import pytest

from divco_tf.errors import InputError
from divco_tf.models.backbones.keras_applications import EFFICIENTNETS, MOBILENETS, EfficientNetV2Spec, MobileNetSpec
from divco_tf.models.branch_stack import build
from divco_tf.models.divide import divide
from divco_tf.models.summary import summarize
from divco_tf.models.template import build_template
from tests.models import wrapped

DATA = {"num_classes": 10, "input_shape": (32, 32, 3)}
SMALL = {
    "mobilenet": MobileNetSpec("MobileNet", alpha=0.1),
    "mobilenet_v2": MobileNetSpec("MobileNetV2", alpha=0.1),
    "mobilenet_v3": MobileNetSpec("MobileNetV3Small", alpha=0.1, dropout=0.2),
    "efficientnet_v2": EfficientNetV2Spec("efficientnetv2-b0", width_coefficient=0.1, depth_coefficient=0.3),
}


@wrapped.every_check(SMALL, exported="mobilenet_v2")
def test_small_siblings_are_backbones_like_others(spec, what, tmp_path):
    wrapped.check(what, spec, tmp_path)


@pytest.mark.parametrize("name", ["keras_mobilenet", "keras_mobilenet_v3_small", "keras_efficientnet_v2_b0"])
def test_sizes_are_kerass(name):
    # The parameters that Keras documents for its networks of 1000 classes, without their tops.
    known = {"keras_mobilenet": 3228864, "keras_mobilenet_v3_small": 939120, "keras_efficientnet_v2_b0": 5919312}
    template = build_template({**MOBILENETS, **EFFICIENTNETS}[name], **DATA)
    assert template.count_params() - template.get_layer("fc").count_params() == known[name]


def test_images_are_not_rescaled_again():
    for name in ("keras_mobilenet_v3_small", "keras_efficientnet_v2_b0"):
        template = build_template({**MOBILENETS, **EFFICIENTNETS}[name], **DATA)
        assert not [layer for layer in template.layers if type(layer).__name__ in ("Rescaling", "Normalization")]


@pytest.mark.parametrize("name", ["keras_mobilenet", "keras_efficientnet_v2_b0"])
def test_another_split_factor_comes_within_three_percent(name):
    assert 0.97 < summarize(name, split_factor=3, rule="budget", **DATA).of_budget <= 1


def test_the_published_efficientnets_have_multiples_of_eight_channels():
    for name, spec in EFFICIENTNETS.items():
        assert spec.depth_divisor == (1 if spec.width_coefficient == 1 else 8), name
    fine, coarse = (summarize("keras_efficientnet_v2_b0", depth_divisor=divisor, **DATA) for divisor in (1, 8))
    assert fine == coarse


def test_the_paper_has_no_rule_and_the_error_offers_the_budget():
    with pytest.raises(InputError, match=r'MobileNetSpec.alpha .*Received: 2; .*not published. rule="budget"'):
        divide(MobileNetSpec("MobileNet"), 2)


def test_keras_random_layers_have_a_seed_a_branch():
    stack = wrapped.small_stack(SMALL["efficientnet_v2"])
    seeds = [variable.numpy() for variable in stack.variables if "seed_generator" in variable.name]
    assert seeds and all(seed.shape == (2, 2) and seed[0, 0] != seed[1, 0] for seed in seeds)
    assert len({seed[0, 0] for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("spec", [lambda: MobileNetSpec("MobileNet", 0.01), lambda: EfficientNetV2Spec("b", 0.0)])
def test_no_channels_are_refused(spec):
    with pytest.raises(InputError, match="Received: 0"):
        spec()


def test_half_precision_reaches_the_wrapped_layers():
    stack = build(spec=SMALL["mobilenet"], copies=2, precision="mixed_bfloat16", **DATA)
    assert stack.network.template.get_layer("conv1").compute_dtype == "bfloat16"
    assert stack(wrapped.views()).dtype == "float32"
