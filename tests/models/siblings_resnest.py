"""Small siblings of ResNeSt and ResNeXSt: the spec of a branch with few layers, and the shape of a view."""

from typing import Any

from divco_tf.models.backbones.resnest import ResNeStSpec, ResNeXStSpec

RESNEST_SIBLINGS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "resnest": (ResNeStSpec((1, 1), width=16), (17, 16, 3)),
    "resnexst": (ResNeXStSpec((1, 2), groups=2, base_width=8, dropout=0.1), (17, 16, 3)),
}
