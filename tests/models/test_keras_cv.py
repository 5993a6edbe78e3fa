from typing import Any

import pytest

from divco_tf.errors import InputError
from divco_tf.models.backbones.keras_cv import CSPDarkNetSpec, EfficientNetV2Spec, MobileNetV3Spec, ResNetV2Spec
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.summary import summarize
from divco_tf.models.template import build_template
from tests.models import wrapped

LARGE = ("_s", "_m", "_l", "_xl", "101_v2", "152_v2")
DATA = {"num_classes": 10, "input_shape": (32, 32, 3)}
SMALL = {
    "resnet_v2": ResNetV2Spec((2, 2), width=4.5),
    "csp_darknet": CSPDarkNetSpec((1, 1), width=8),
    "mobilenet_v3": MobileNetV3Spec("small", alpha=0.1),
    "efficientnet_v2": EfficientNetV2Spec("b", width_coefficient=0.1, depth_coefficient=0.3),
}


@wrapped.every_check(SMALL, exported="efficientnet_v2")
def test_small_siblings_are_backbones_like_others(spec, what, tmp_path):
    wrapped.check(what, spec, tmp_path)


def parameters(name: str) -> int:
    """Of a network without the classifier, batch-norm statistics included."""
    template = build_template(BACKBONES.get(name).spec, **DATA)
    return template.count_params() - template.get_layer("fc").count_params()


def preset_names() -> list[Any]:
    names = [name for name in BACKBONES.names() if name.startswith("keras_cv_") and "mobilenet" not in name]
    return [pytest.param(name, marks=pytest.mark.slow if name.endswith(LARGE) else ()) for name in names]


@pytest.mark.parametrize("name", preset_names())
def test_sizes_are_those_of_keras_cvs_presets(name):
    import keras_cv

    kind = {"res": "ResNetV2", "csp": "CSPDarkNet", "eff": "EfficientNetV2"}[name.removeprefix("keras_cv_")[:3]]
    presets = getattr(keras_cv.models, f"{kind}Backbone").presets
    theirs = name.removeprefix("keras_cv_").replace("efficientnet_v2", "efficientnetv2")
    assert parameters(name) == presets[theirs]["metadata"]["params"]


@pytest.mark.parametrize("size", ["small", "large"])
def test_mobilenets_are_as_large_as_those_of_keras_applications(size):
    # keras-cv's presets state 933,502 and 2,994,518, which their own builder does not give (0.9.0).
    assert parameters(f"keras_cv_mobilenet_v3_{size}") == parameters(f"keras_mobilenet_v3_{size}")


def test_another_split_factor_comes_within_three_percent():
    assert 0.97 < summarize("keras_cv_resnet50_v2", split_factor=3, rule="budget", **DATA).of_budget <= 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (lambda: ResNetV2Spec((2, 2), width=0), "not positive"),
        (lambda: ResNetV2Spec((2, 1)), "stage of one block"),
        (lambda: CSPDarkNetSpec((1, 1), width=1), "not positive"),
        (lambda: MobileNetV3Spec("small", alpha=-1), "not positive"),
        (lambda: EfficientNetV2Spec("b", 0.0), "not positive"),
    ],
)
def test_no_network_is_refused(spec, says):
    with pytest.raises(InputError, match=rf"{says}.* Received: "):
        spec()
