"""Exports a trained run as a SavedModel for TF Serving."""

import pathlib
import shlex

from absl import flags

from divco_tf.tools import _app

MODEL_DIR = _app.model_dir_flag()
EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Where versions lie, each in a folder of its number.", required=True
)
WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best"], "Which weights of the run.")
VERSION = flags.DEFINE_integer(
    "version", None, "The version's number; one more than the highest unless given.", lower_bound=1
)
BRANCH_PROBABILITIES = flags.DEFINE_bool("branch_probabilities", False, "Return each branch's probabilities too.")


def main() -> None:
    """Exports, and says what lies where and how it is served."""
    _app.load_tensorflow()
    from divco_tf.serving.export import export, read_record, signature_lines

    folder = export(
        MODEL_DIR.value,
        export_dir=EXPORT_DIR.value,
        version=VERSION.value,
        weights=WEIGHTS.value,
        branch_probabilities=BRANCH_PROBABILITIES.value,
    ).resolve()
    print(f"exported {read_record(folder)['weights_from']}\n      to {folder}\n\nsignatures")
    for line in signature_lines(folder):
        print(f"  {line}")
    print(f"\nserve it with one of\n  {docker_line(folder.parent)}\n  {server_line(folder.parent)}")


def docker_line(base_path: pathlib.Path) -> str:
    """The command that serves `base_path` by TF Serving's container."""
    mount = shlex.quote(f"{base_path}:/models/divco:ro")
    return f"docker run --rm -p 8501:8501 -v {mount} -e MODEL_NAME=divco tensorflow/serving"


def server_line(base_path: pathlib.Path) -> str:
    """The command that serves `base_path` by TF Serving's program."""
    path = shlex.quote(str(base_path))
    return f"tensorflow_model_server --rest_api_port=8501 --model_name=divco --model_base_path={path}"


def run() -> None:
    """The console script divco-export."""
    _app.run(main, program="divco-export")


if __name__ == "__main__":
    run()
