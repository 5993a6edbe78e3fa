"""Looks at training views: divco-views cifar10/wide_resnet16_8_split4 --data_dir=data --out=views.png

Draws a contact sheet: an image a row, then its S views, with the names and magnitudes of what was drawn beneath.
--check reads every image of the dataset once instead, of all splits, and lists what is wrong with it.
"""

import io
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from divco_tf.tools.shared import app, streams

if TYPE_CHECKING:
    from divco_tf.runs.experiment import Experiment
    from divco_tf.runs.options import Options

_CONFIG = app.ConfigFlags()
_DATA_DIR = app.data_dir_flag()
_OUT = flags.DEFINE_string("out", None, "The sheet, a PNG file.")
_STEP = flags.DEFINE_integer("step", 0, "The training step whose batch is shown.", lower_bound=0)
_IMAGES = flags.DEFINE_integer("images", 8, "Rows of the sheet.", lower_bound=1)
_CHECK = flags.DEFINE_bool("check", False, "Read the whole dataset once, and list what is wrong.")
_SPLIT = flags.DEFINE_string("split", None, "Of --check: train, held_out or test, instead of all.")
_JSON = app.json_flag("Print what was found as JSON, alone on stdout; progress goes to stderr.")
_QUIET = app.quiet_flag()


def main() -> None:
    """Draws the sheet, or checks the data."""
    if bool(_OUT.value) == _CHECK.value:
        raise app.InputError(
            f"Give either --out or --check. Received: out={_OUT.value!r}, check={_CHECK.value}; --out views.png draws "
            "a sheet."
        )
    _CONFIG.check()
    if _OUT.value and pathlib.Path(_OUT.value).suffix.lower() != ".png":
        raise app.InputError(f"A sheet is a PNG file. Received: {_OUT.value}; views.png would work.")
    app.load_tensorflow()
    experiment, options = _CONFIG.parse()
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
    findings = check(*sources.values(), threads=options.threads or 8, report=streams.tell)
    problems = findings.problems
    images = {split.replace("_", "-"): len(source) for split, source in sources.items()}
    notes = list(dict.fromkeys(note for source in sources.values() for note in source.notes))
    if _JSON.value:
        app.print_json({"splits": images, "refused": refusals, **vars(findings), "notes": notes})
    else:
        counts = [", ".join(f"{count} {split}" for split, count in images.items())] if len(images) > 1 else []
        print(*refusals, *findings.lines(), *counts, *notes, sep="\n")
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
    pipeline.warm_up(report=streams.note)
    sheet = contact_sheet(pipeline, step=_STEP.value, images=_IMAGES.value)
    data = io.BytesIO()
    Image.fromarray(sheet).save(data, "PNG")
    files.write_bytes(path, data.getvalue())
    if _JSON.value:
        app.print_json({"sheet": str(path), "width": sheet.shape[1], "height": sheet.shape[0]})
    else:
        print(f"{path}: {sheet.shape[1]} x {sheet.shape[0]} pixels")


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-views",
        required=("config",),
        common=("out", "check", "set", "data_dir"),
        behind="--out=FILE.png|--check [--flag=value ...]",
        examples=(
            "divco-views digits/wide_resnet10_2_split4 --out=views.png --set views=digits+rand-m9-mstd0.5",
            "divco-views image_folder/wide_resnet16_8_split4 --data_dir=photos --check",
        ),
    )


if __name__ == "__main__":
    run()
