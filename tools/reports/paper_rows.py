"""The paper's rows: what it prints, and what our networks count at the row's own image size."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divco_tf import compat
from divco_tf.data.datasets import get_dataset
from divco_tf.models.division import branch_spec
from divco_tf.tools.shared.configs import configs_dir
from divco_tf.tools.shared.tables import markdown_table, table

if TYPE_CHECKING:
    import keras

TITLES = {
    "II": "Table II, CIFAR-100",
    "III": "Table III, CIFAR-10",
    "IV": "Table IV, ImageNet",
    "checkpoints": "The authors' list of checkpoints, where it has more",
}

# Each of the authors' two counters fails on one family: their summary stops with an error on a DenseNet, and their thop
# does not see the convolutions of the ImageNet EfficientNets.
_FAILS = {("densenet190", "summary"), ("efficientnet_b7", "thop")}
# thop sees modules only. In these networks of the authors, global pooling is a function, in the layers so named here.
_POOLED_UNSEEN = {
    "densenet|efficientnet_b._cifar": ".*",
    "resnexst": r"layer.*\.pool",  # of split attention
}

_INTRODUCTION = """\
# The paper's rows, published against computed

Written by `divco-summarize --paper --markdown`; a test keeps it current.

A row is a config in `gin/`. What is *computed* is counted from the shapes of our networks at the row's own image size,
over all S of them: trainable parameters, and multiply-adds of convolutions and linear layers for one image. The paper
mixes several counts, so *equal to* names each one that, rounded to the decimals that the paper prints, is the published
figure:

| count | what it is |
|---|---|
| parameters | trainable parameters |
| with statistics | the same and batch norm's running means and variances |
| multiply-adds | of convolutions and linear layers |
| summary | of the authors' summary: half of the additions and multiplications of convolutions, linear layers, norms |
| thop | of their thop: multiply-adds, the convolutions' biases, two operations a norm's input, average pooling |

A dash: no count is the published figure. Shake-Shake has no parameters here for the shortcuts that it never uses.
None of these rows has been trained to its end here, so there is no accuracy of ours to compare.
"""

_DETECTION = """\
Missing: the paper's six rows of SSD300 on COCO. Dividing a detector is not there yet.
"""


@dataclasses.dataclass(frozen=True)
class Counts:
    """Sizes of S branches together, by each way of counting."""

    parameters: int
    statistics: int
    """Elements of batch norm's running means and variances."""
    multiply_adds: int
    summary: int
    thop: int


def paper_tables() -> dict[str, Any]:
    """The published figures: "rows" and "detection_rows", lists of dictionaries; figures are texts."""
    return json.loads((configs_dir() / "paper_tables.json").read_text())


def count_row(row: Mapping[str, Any]) -> Counts:
    """Counts a row's network from its shapes. TensorFlow is imported here."""
    from divco_tf.models.sizes import count_multiply_adds, count_parameters
    from divco_tf.models.template import build_template

    split_factor, classes = row["split_factor"], get_dataset(row["dataset"]).num_classes
    spec = branch_spec(row["backbone"], split_factor=split_factor)
    template = build_template(spec, num_classes=classes, input_shape=(row["crop"], row["crop"], 3))
    return Counts(
        parameters=split_factor * count_parameters(template),
        statistics=split_factor * sum(math.prod(variable.shape) for variable in template.non_trainable_variables),
        multiply_adds=split_factor * count_multiply_adds(template),
        summary=split_factor * count_like_summary(template) // 2,
        thop=split_factor * count_like_thop(template, row["backbone"]),
    )


def count_rows(rows: Iterable[Mapping[str, Any]], report: Callable[[str], None]) -> dict[str, Counts]:
    """Counts every row, each network once; by the row's config."""
    counted: dict[tuple, Counts] = {}
    networks = {row["config"]: (row["dataset"], row["backbone"], row["split_factor"], row["crop"]) for row in rows}
    for row in rows:
        network = networks[row["config"]]
        if network not in counted:
            report(f"counting network {len(counted) + 1} of {len(set(networks.values()))}: {row['config']}")
            counted[network] = count_row(row)
    return {config: counted[network] for config, network in networks.items()}


def count_like_summary(model: "keras.Model") -> int:
    """Additions and multiplications as the authors' summary counts them, where an output of a convolution takes an
    addition less than multiplications. (It divides those savings by the groups.)"""
    import keras

    from divco_tf.models.sizes import layer_multiply_adds

    total = 0
    for layer, outputs in _layers(model):
        if isinstance(layer, keras.layers.Dense):
            total += 2 * layer_multiply_adds(layer, layer.output.shape)
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            saved = 0 if layer.use_bias else outputs // _groups(layer)
            total += 2 * layer_multiply_adds(layer, layer.output.shape) - saved
        elif isinstance(layer, keras.layers.BatchNormalization):
            total += 2 * outputs
    return total


def count_like_thop(model: "keras.Model", backbone: str) -> int:
    """What thop (the authors' copy of pytorch-OpCounter) counts as multiply-adds of a network of theirs."""
    import keras

    from divco_tf.models.sizes import layer_multiply_adds

    unseen = next((layers for names, layers in _POOLED_UNSEEN.items() if re.match(names, backbone)), None)
    total = 0
    for layer, outputs in _layers(model):
        if isinstance(layer, keras.layers.Dense):
            total += layer_multiply_adds(layer, layer.output.shape)
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            total += layer_multiply_adds(layer, layer.output.shape) + outputs * layer.use_bias
        elif isinstance(layer, keras.layers.BatchNormalization):
            total += 2 * outputs
        elif isinstance(layer, keras.layers.AveragePooling2D):
            total += outputs
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D):
            _, height, width, channels = layer.input.shape
            seen = unseen is None or not re.match(unseen, layer.name)
            total += seen * channels * (height * width + 1)
    return total


def equal_counts(row: Mapping[str, Any], counts: Counts) -> tuple[list[str], list[str]]:
    """The counts that are the published parameters, and the published multiply-adds, as they are printed."""
    parameters = {"parameters": counts.parameters, "with statistics": counts.parameters + counts.statistics}
    operations = {"multiply-adds": counts.multiply_adds, "summary": counts.summary, "thop": counts.thop}

    def equal(printed: str, known: Mapping[str, int], unit: float) -> list[str]:
        decimals = len(printed.partition(".")[2])
        return [
            name
            for name, count in known.items()
            if f"{count / unit:.{decimals}f}" == printed and (row["backbone"], name) not in _FAILS
        ]

    return equal(row["mparams"], parameters, 1e6), equal(row["gmacs"], operations, 1e9)


def table_row(row: Mapping[str, Any], counts: Counts) -> tuple[str, ...]:
    """A row's cells, under `head`."""
    parameters, operations = equal_counts(row, counts)
    published = row["top1_error"] if "top1_error" in row else f"{row['top1']} / {row['top5']}"
    return (
        *(row["config"], published),
        *(row["mparams"], f"{counts.parameters:,}", ", ".join(parameters) or "–"),
        *(row["gmacs"], f"{counts.multiply_adds:,}", ", ".join(operations) or "–"),
    )


def head(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The head of a table of `rows`."""
    measures = {"error" if "top1_error" in row else "top-1 / top-5 accuracy" for row in rows}
    return (
        *("config", f"published {' or '.join(sorted(measures))}, %"),
        *("published parameters, M", "computed", "equal to"),
        *("published multiply-adds, G", "computed", "equal to"),
    )


def paper_table(rows: Sequence[Mapping[str, Any]], counted: Mapping[str, Counts], *, markdown: bool) -> str:
    """The rows by the table of the paper, as text or as a page."""
    parts = [_INTRODUCTION] if markdown else []
    for name, title in TITLES.items():
        members = [row for row in rows if row["table"] == name]
        cells = [table_row(row, counted[row["config"]]) for row in members]
        if markdown:
            cells = [(f"`{config}`", *others) for config, *others in cells]
            parts += [f"## {title}\n", markdown_table(head(members), cells) + "\n"]
        else:
            parts += [f"{title}\n", table(head(members), cells) + "\n"]
    both = sum(all(equal_counts(row, counted[row["config"]])) for row in rows)
    parts.append(f"{both} of {len(rows)} rows have both figures equal to a count.\n")
    if markdown:
        parts.append(_DETECTION)
    return "\n".join(parts).rstrip("\n")


def _layers(model: "keras.Model") -> Iterable[tuple["keras.layers.Layer", int]]:
    """Each layer with the number of its outputs for one image."""
    for layer in compat.flat_layers(model, include_self=False):
        if hasattr(layer, "output") and not isinstance(layer.output, list | tuple | dict):
            yield layer, math.prod(layer.output.shape[1:])


def _groups(layer: "keras.layers.Layer") -> int:
    return getattr(layer, "groups", layer.input.shape[-1])  # a depthwise convolution has a group a channel
