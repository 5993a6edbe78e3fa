"""Exports a trained run as a SavedModel: divco-export --model_dir runs/digits --export_dir exports/digits.

TensorFlow and TF Serving run it without this package; JPEG and PNG images of any size go in.
"""

import pathlib
import shlex

from absl import flags

from divco_tf.tools.shared import app, configs

_MODEL_DIR = app.model_dir_flag()
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Where versions lie, each in a folder of its number.")
_WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best", "ema"], "Of the run.")
_VERSION = flags.DEFINE_integer("version", None, "The version's number; one more than the highest unless given.")
_BRANCH_PROBABILITIES = flags.DEFINE_bool("branch_probabilities", False, "Return each branch's probabilities too.")
_JSON = app.json_flag("Print where it lies, from which weights, and its signatures, as JSON.")


def main() -> None:
    """Exports, and says what lies where and how it is served."""
    app.check_model_dir(_MODEL_DIR.value)
    app.load_tensorflow()
    from divco_tf.serving.export import export, read_record, signature_lines

    with configs.modules_of(_MODEL_DIR.value):
        folder = export(
            _MODEL_DIR.value,
            export_dir=_EXPORT_DIR.value,
            version=_VERSION.value,
            weights=_WEIGHTS.value,
            branch_probabilities=_BRANCH_PROBABILITIES.value,
        ).resolve()
    if _JSON.value:
        weights = read_record(folder)["weights_from"]
        app.print_json({"folder": folder, "weights": weights, "signatures": signature_lines(folder)})
        return
    print(f"exported {read_record(folder)['weights_from']}\n      to {folder}\n\nsignatures")
    for line in signature_lines(folder):
        print(f"  {line}")
    print(f"\nserve it with one of\n  {docker_line(folder.parent)}\n  {server_line(folder.parent)}")


def docker_line(base_path: pathlib.Path) -> str:
    """The command that serves `base_path` by TF Serving's container. --mount takes any path, -v none with a colon."""
    source = f"source={base_path}"
    if set(',"') & set(source):  # the fields of --mount are CSV
        source = '"' + source.replace('"', '""') + '"'
    mount = shlex.quote(f"type=bind,{source},target=/models/divco,readonly")
    return f"docker run --rm -p 8501:8501 --mount {mount} -e MODEL_NAME=divco tensorflow/serving"


def server_line(base_path: pathlib.Path) -> str:
    """The command that serves `base_path` by TF Serving's program, or why it cannot."""
    if set("[\\") & set(str(base_path)):
        return "TensorFlow takes [ and \\ in a path for a pattern: its own programs read the export under another path"
    path = shlex.quote(str(base_path))
    return f"tensorflow_model_server --rest_api_port=8501 --model_name=divco --model_base_path={path}"


def run() -> None:
    """The console script divco-export."""
    app.run(
        main,
        program="divco-export",
        required=("model_dir", "export_dir"),
        common=("weights", "version"),
        examples=("divco-export --model_dir=runs/digits --export_dir=exports/digits --weights=best",),
    )


if __name__ == "__main__":
    run()
