"""The registered backbones by split factor: which they take, and the sizes of all of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.divide import widths
from divco_tf.models.division import branch_spec
from divco_tf.tools.shared.tables import markdown_table, table

if TYPE_CHECKING:
    from divco_tf.models.summary import Summary

PAPERS = (1, 2, 4, 8)
"""The split factors of the paper and of its authors' code."""
_TRIED = (*range(1, 17), 32, 64)

# Networks for ImageNet by the pixels a side that they were made for: 224, and EfficientNets' own (arXiv 1905.11946).
_LARGE = """
    resnet50 resnet101 resnet152 resnet200 wide_resnet50_2 wide_resnet50_3 wide_resnet101_2
    resnext50_32x4d resnext101_32x4d resnext101_64x4d senet113 senet154
    se_resnet50 se_resnet50_b se_resnet101 se_resnet152 se_resnext101_64x4d se_resnext101_64x4d_b
    resnest101 resnest200 resnest269 resnexst50_4x16d resnexst50_8x16d resnexst50_4x32d resnexst101_8x32d
"""
IMAGE_SIZES = dict.fromkeys(_LARGE.split(), 224) | {
    f"efficientnet_b{index}": size for index, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600, 672))
}
# Those of keras.applications and keras-cv are for ImageNet too.
IMAGE_SIZES |= {name: 224 for name in BACKBONES.names() if name.startswith("keras_")}

_INTRODUCTION = """\
# Backbones by split factor

Written by `divco-summarize --all --markdown`; a test keeps it current.

Parameters and multiply-adds are of all S branches together, for one image: ImageNet's 1,000 classes at the size that a
network was made for, or CIFAR-100's 100 at 32 pixels. Regularisation is each branch's. A split factor of 1, 2, 4 or 8
that is not listed has no published division: `--rule budget` divides any of these networks by any number.
"""

HEAD = ("backbone", "pixels", "S", "parameters", "multiply-adds", "regularisation")


def split_factors(name: str, tried: Iterable[int] = _TRIED) -> list[int]:
    """Those of `tried` that the backbone divides by."""
    return [split_factor for split_factor in tried if _takes(name, split_factor)]


def list_backbones() -> str:
    """Every name, and the forms of parametric ones, with the split factors they take. Needs no TensorFlow."""
    rows = []
    for entry in BACKBONES.entries():
        taken = split_factors(entry.name)
        published = "any" if len(taken) == len(_TRIED) else ", ".join(map(str, taken))
        rows.append((entry.name, published, "any" if widths(entry.spec) else "–"))
    return "\n".join([table(("backbone", "split factors", "by --rule budget"), rows), *BACKBONES.shapes()])


def summaries(names: Iterable[str], report: Callable[[str], None]) -> list["Summary"]:
    """The sizes of each backbone by each of the paper's split factors that it takes. Imports TensorFlow."""
    from divco_tf.models.summary import summarize

    divisions = [(name, split_factor) for name in names for split_factor in split_factors(name, PAPERS)]
    found = []
    for name, split_factor in divisions:
        report(f"counting network {len(found) + 1} of {len(divisions)}: {name}, S = {split_factor}")
        size = IMAGE_SIZES.get(name, 32)
        found.append(
            summarize(
                name,
                split_factor=split_factor,
                num_classes=1000 if name in IMAGE_SIZES else 100,
                input_shape=(size, size, 3),
            )
        )
    return found


def table_row(summary: "Summary") -> tuple[str, ...]:
    """A division's cells, under `HEAD`."""
    strengths = ", ".join(f"{name} {value:.4g}" for name, value in summary.regularisation.items() if value)
    size = str(IMAGE_SIZES.get(summary.backbone, 32))
    sizes = (f"{summary.parameters:,}", f"{summary.multiply_adds:,}")
    return (summary.backbone, size, str(summary.split_factor), *sizes, strengths or "–")


def backbone_table(found: Sequence["Summary"], *, markdown: bool) -> str:
    """The divisions as text, or as a page."""
    rows = [table_row(summary) for summary in found]
    return f"{_INTRODUCTION}\n{markdown_table(HEAD, rows)}" if markdown else table(HEAD, rows)


def _takes(name: str, split_factor: int) -> bool:
    try:
        branch_spec(name, split_factor=split_factor)
    except InputError:
        return False
    return True
