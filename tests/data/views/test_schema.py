"""What an augmentation may be."""

import pytest

from divco_tf.data.views.schema import Augmentation, Range, Space, Step
from divco_tf.errors import InputError

SPACE = Space(10, (0, 0, 0), {"invert": Range()})


def _space(**ranges: Range) -> Space:
    return Space(10, (0, 0, 0), ranges)


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda: Range(rounding="upwards"), "upwards"),
        (lambda: Range(resampling=("cubic",)), "cubic"),
        (lambda: Range(resampling=()), r"\(\)"),
        (lambda: Range(resampling="bilinear"), "'bilinear'"),
        (lambda: Range(0, float("nan")), "nan"),
        (lambda: Range(float("-inf"), 0), "-inf"),
        (lambda: Range(0, "30"), "'30'"),
        (lambda: Range(signed=1), "1; pass True"),
        (lambda: Space(0, (0, 0, 0), {}), "top=0"),
        (lambda: Space(2.5, (0, 0, 0), {}), "2.5"),
        (lambda: Space(10, (0, 0, 0.5), {}), "0.5"),
        (lambda: Space(10, 0, {}), "0"),
        (lambda: Space(10, (0, 0, 0), {"rotate": 30}), "30"),
        (lambda: Space(10, (0, 0, 0), {"shear_xx": Range()}), "'shear_xx'. Did you mean shear_x"),
        (lambda: _space(posterize=Range(12, 12)), "12 to 12; within 0 to 8"),
        (lambda: _space(posterize=Range(0, 4, signed=True)), "-4 to 4; within 0 to 8"),
        (lambda: _space(posterize=Range(8, 7.5, offset=1)), "8.5 to 9; within 0 to 8"),
        (lambda: _space(posterize=Range(-3, -3)), "-3 to -3"),
        (lambda: _space(posterize=Range(8.2, 0, rounding="up")), "0 to 9"),
        (lambda: _space(solarize=Range(257, 0)), "0 to 257; within 0 to 256"),
        (lambda: _space(solarize_add=Range(-20, -20)), "-20 to -20; within 0 to 255"),
        (lambda: _space(brightness=Range(0, 1.2, signed=True, offset=1)), "-0.2 to 2.2; within 0 to 100"),
        (lambda: _space(translate_x=Range(0, 1e30)), r"0 to 1e\+30; within -10 to 10"),
        (lambda: Augmentation(None, ((Step("invert"),),)), "None"),
        (lambda: Augmentation(SPACE, (Step("invert"),)), r"Step\(operation='invert'"),
        (lambda: Augmentation(SPACE, (("invert",),)), "'invert'"),
        (lambda: Augmentation(SPACE, ((Step("invert"),),), draws=1.5), "1.5"),
        (lambda: Augmentation(SPACE, ((Step("invert", float("nan")),),)), "nan"),
        (lambda: Augmentation(SPACE, ((Step("invert", -0.1),),)), "probability=-0.1"),
        (lambda: Augmentation(SPACE, ((Step("invert", True),),)), "True"),
        (lambda: Augmentation(SPACE, ((Step("invert", level="9"),),)), "'9'"),
        (lambda: Augmentation(SPACE, ((Step("invert", level=float("nan")),),)), "nan"),
        (lambda: Augmentation(SPACE, ((Step("invert", level=5, std=float("nan")),),)), "nan"),
        (lambda: Space(10, (0, 0, 256), {}), "256"),
        (lambda: Augmentation(SPACE, ()), "0 sub-policies"),
        (lambda: Augmentation(SPACE, ((Step("invert"),),), draws=0), "draws=0"),
        (lambda: Augmentation(SPACE, ((Step("rotate"),),)), "rotate; the space has invert"),
        (lambda: Augmentation(SPACE, ((Step("inverse"),),)), "inverse"),
        (lambda: Augmentation(SPACE, ((Step("invert", 1.5),),)), "probability=1.5"),
        (lambda: Augmentation(SPACE, ((Step("invert", level=11),),)), "level=11"),
        (lambda: Augmentation(SPACE, ((Step("invert", level=-1),),)), "level=-1"),
        (lambda: Augmentation(SPACE, ((Step("invert", std=-0.5),),)), "std=-0.5"),
    ],
)
def test_tables_that_make_no_sense_are_refused_in_one_line(make, received):
    with pytest.raises(InputError, match=f"Received: .*{received}") as error:
        make()
    assert "\n" not in str(error.value)
