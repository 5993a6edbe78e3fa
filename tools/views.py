"""Looks at training views: divco-views --config cifar10/wide_resnet16_8_split4 --data_dir data --out views.png

Draws a contact sheet: an image a row, then its S views, with the names and magnitudes of what was drawn beneath.
--check reads every image of the dataset once instead, of all splits, and lists what is wrong with it.
"""

import functools
import io
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from divco_tf.tools.shared import app, configs

if TYPE_CHECKING:
    from divco_tf.runs.experiment import Experiment
    from divco_tf.runs.options import Options

_CONFIG, _BIND = app.config_flags()
_DATA_DIR = app.data_dir_flag()
_OUT = flags.DEFINE_string("out", None, "The sheet, a PNG file.")
_STEP = flags.DEFINE_integer("step", 0, "The training step whose batch is shown.", lower_bound=0)
_IMAGES = flags.DEFINE_integer("images", 8, "Rows of the sheet.", lower_bound=1)
_CHECK = flags.DEFINE_bool("check", False, "Read the whole dataset once, and list what is wrong.")
_SPLIT = flags.DEFINE_string("split", None, "Of --check: train, held_out or test, instead of all.")


def main() -> None:
    """Draws the sheet, or checks the data."""
    if bool(_OUT.value) == _CHECK.value:
        raise app.InputError(
            f"Give either --out or --check. Received: out={_OUT.value!r}, check={_CHECK.value}; --out views.png draws "
            "a sheet."
        )
    configs.find_config(_CONFIG.value)
    if _OUT.value and pathlib.Path(_OUT.value).suffix.lower() != ".png":
        raise app.InputError(f"A sheet is a PNG file. Received: {_OUT.value}; views.png would work.")
    app.load_tensorflow()
    configs.parse_config(_CONFIG.value, _BIND.value)
    experiment, options = configs.experiment(), configs.options()
    if _CHECK.value:
        _check(experiment, options)
    else:
        _draw(experiment, options)


def _check(experiment: "Experiment", options: "Options") -> None:
    from divco_tf.data.sources.check import check

    sources, refusals = {}, []
    for split in [_SPLIT.value] if _SPLIT.value else ["train", *["held_out"] * bool(experiment.held_out), "test"]:
        try:
            sources[split] = experiment.open(split, data_dir=_DATA_DIR.value, on_error="skip", memory_budget=0)
        except app.InputError as error:
            if not sources:
                raise
            refusals.append(f"The {split.replace('_', '-')} images cannot be listed: {error}")
    report = functools.partial(print, flush=True)
    findings = check(*sources.values(), threads=options.threads or 8, report=report)
    problems = findings.problems
    print(*refusals, *findings.lines(), sep="\n")
    if len(sources) > 1:
        print(", ".join(f"{len(source)} {split.replace('_', '-')}" for split, source in sources.items()))
    for note in dict.fromkeys(note for source in sources.values() for note in source.notes):
        print(note)
    if refusals or problems:
        also = f", and {len(refusals)} splits cannot be listed" if refusals else ""
        raise app.RunError(f"{len(problems)} images cannot be read{also}.")


def _draw(experiment: "Experiment", options: "Options") -> None:
    from PIL import Image

    from divco_tf import files
    from divco_tf.data.contact_sheet import contact_sheet
    from divco_tf.runs.assemble import make_pipeline

    path = pathlib.Path(_OUT.value)
    files.make_writable(path.parent, "folder of the sheet")
    source = experiment.open("train", data_dir=_DATA_DIR.value, on_error=options.on_error)
    pipeline = make_pipeline(experiment, source, on_error=options.on_error)
    pipeline.warm_up(report=lambda line: print(line, file=sys.stderr, flush=True))
    sheet = contact_sheet(pipeline, step=_STEP.value, images=_IMAGES.value)
    data = io.BytesIO()
    Image.fromarray(sheet).save(data, "PNG")
    files.write_bytes(path, data.getvalue())
    print(f"{path}: {sheet.shape[1]} x {sheet.shape[0]} pixels")


def run() -> None:
    """The console script."""
    app.run(main, program="divco-views")


if __name__ == "__main__":
    run()
