"""Sizes of a divided backbone: divco-summarize --backbone wide_resnet28_10 --split_factor 4 --num_classes 100.

Parameters, multiply-adds (of convolutions and linear layers, for one image) and divided regularisers, counted from
shapes: no weights are built.
"""

import dataclasses
import json

from absl import flags

from divco_tf.tools import _app

_BACKBONE = flags.DEFINE_string("backbone", None, "The name of a registered backbone.")
_SPLIT_FACTOR = flags.DEFINE_integer("split_factor", 1, "S, the number of small networks.")
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 10, "K.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Pixels a side.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
_LIST = flags.DEFINE_bool("list", False, "Print every registered backbone.")


def main() -> None:
    """Prints the summary, or the list."""
    from divco_tf.models.backbones import BACKBONES
    from divco_tf.models.spec import branch_spec

    if _LIST.value:
        print("\n".join((*BACKBONES.names(), *BACKBONES.shapes())))
        return
    if _BACKBONE.value is None:
        raise _app.missing_flag("backbone", BACKBONES.names())
    branch_spec(_BACKBONE.value, split_factor=_SPLIT_FACTOR.value)  # refuses before TensorFlow is imported
    _app.load_tensorflow()
    from divco_tf.models.summary import summarize
    from divco_tf.tools._tables import table

    summary = summarize(
        _BACKBONE.value,
        split_factor=_SPLIT_FACTOR.value,
        num_classes=_NUM_CLASSES.value,
        input_shape=(_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3),
    )
    if _JSON.value:
        print(json.dumps(dataclasses.asdict(summary), indent=1))
        return
    regularisers = ", ".join(f"{name} {value:g}" for name, value in summary.regularisation.items()) or "none"
    branch = (f"{summary.parameters_per_branch:,}", f"{summary.multiply_adds_per_branch:,}", regularisers)
    rows = [(f"branch {index}", *branch) for index in range(summary.split_factor)]
    rows.append(("whole", f"{summary.parameters:,}", f"{summary.multiply_adds:,}", ""))
    title = f"{summary.backbone}, split factor {summary.split_factor}"
    print(table((title, "parameters", "multiply-adds", "regularisers"), rows))


def run() -> None:
    """The console script."""
    _app.run(main, program="divco-summarize")


if __name__ == "__main__":
    run()
