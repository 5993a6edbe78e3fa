"""Imports a checkpoint of the authors: divco-import --checkpoint FILE --backbone NAME ... --model_dir runs/theirs.

PyTorch's files are read without PyTorch, and nothing in them is executed. divco-evaluate and divco-export take the
folder.
"""

import pathlib

from absl import flags

from divco_tf.tools.shared import app

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The file: .pth.tar or .pth, of torch.save, or .safetensors.")
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "The file's entry that is taken, state_dict_ema, say; state_dict or another usual one unless given.",
)
_BACKBONE = flags.DEFINE_string("backbone", None, "The name of a registered backbone.")
_SPLIT_FACTOR = flags.DEFINE_integer("split_factor", 1, "S, the number of small networks.")
_NUM_CLASSES = flags.DEFINE_integer("num_classes", None, "K.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Pixels a side; the dataset's unless given.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "Whose images it takes, normalised that way; unless given, the authors' of so many classes."
)
_MODEL_DIR = app.model_dir_flag()


def main() -> None:
    """Imports, and says what lies where under which licence."""
    from divco_tf.models.backbones.registry import BACKBONES
    from divco_tf.models.division import branch_spec
    from divco_tf.torch_files.checkpoint import read_checkpoint

    if _BACKBONE.value is None:
        raise app.missing_flag("backbone", BACKBONES.names())
    branch_spec(_BACKBONE.value, split_factor=_SPLIT_FACTOR.value)  # refused, as the file, before TensorFlow starts
    checkpoint = read_checkpoint(_CHECKPOINT.value, key=_WEIGHTS.value)
    app.load_tensorflow()
    from divco_tf.runs.imported import import_checkpoint

    run = import_checkpoint(
        checkpoint,
        model_dir=pathlib.Path(_MODEL_DIR.value),
        backbone=_BACKBONE.value,
        num_classes=_NUM_CLASSES.value,
        split_factor=_SPLIT_FACTOR.value,
        image_size=_IMAGE_SIZE.value,
        dataset=_DATASET.value,
    )
    size = run.experiment.preprocessing.image_size
    print(f"imported {checkpoint.path}\n      to {run.model_dir}, for {run.experiment.dataset} images of {size} pixels")
    print(
        f"The authors publish their checkpoints under {run.imported['licence']}, which binds what is made of them too: "
        "https://creativecommons.org/licenses/by-nc/4.0/"
    )


def run() -> None:
    """The console script divco-import."""
    app.run(
        main,
        program="divco-import",
        required=("checkpoint", "num_classes", "model_dir"),
        common=("backbone", "split_factor"),
        examples=(
            "divco-import --checkpoint=model.pth.tar --backbone=wide_resnet28_10 --split_factor=4 --num_classes=100 "
            "--model_dir=runs/theirs",
        ),
    )


if __name__ == "__main__":
    run()
