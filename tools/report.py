"""Makes one HTML page of a sweep, or of a run: divco-report sweeps/digits --out report.html

Does it pay? The verdict stands first; then differences with their intervals, arms against their cost, confidence,
branches, mistakes, and what has failed. The page needs no network, and no file beside it. --data_dir says where images
lie that are to be shown, --latency takes what `divco-benchmark latency --out` has measured.
"""

import pathlib
import shlex
import sys

from absl import flags

from divco_tf import files
from divco_tf.analysis.results import is_sweep
from divco_tf.errors import InputError
from divco_tf.tools.shared import app

_OUT = flags.DEFINE_string("out", None, "The page; report.html in DIR unless given.")
_BASELINE = flags.DEFINE_string(
    "baseline", None, 'The arm that others are compared with, as the page calls it: "S=1"; the plainest unless given.'
)
_LATENCY = flags.DEFINE_string("latency", None, "A JSON file of divco-benchmark latency --out.")
_DATA_DIR = app.data_dir_flag()
_JSON = app.json_flag("Print where the page lies, and its size, as JSON.")


def main(folder: str) -> None:
    """Writes the page."""
    out = pathlib.Path(_OUT.value or pathlib.Path(folder, "report.html")).expanduser()
    if out.is_dir():
        raise InputError(f"--out is a file. Received: {out}, a folder; {out / 'report.html'} works.")
    is_sweep(pathlib.Path(folder).expanduser())  # refused before TensorFlow starts
    app.load_tensorflow()
    from divco_tf.analysis.report.costs import read_latencies
    from divco_tf.analysis.report.page import report
    from divco_tf.tools.reports.paper_rows import paper_tables
    from divco_tf.tools.shared import configs

    latencies = read_latencies(_LATENCY.value) if _LATENCY.value else ()
    with configs.modules_of(folder):
        page = report(
            folder,
            baseline=_BASELINE.value,
            data_dir=_DATA_DIR.value,
            latencies=latencies,
            published=paper_tables()["rows"],
            command=shlex.join(["divco-report", *sys.argv[1:]]),
        )
    files.make_writable(out.parent, "folder of --out")
    files.write_text(out, page)
    size = len(page.encode())
    if _JSON.value:
        app.print_json({"page": out, "bytes": size})
    else:
        print(f"{out}: {size / 1e6:.1f} MB")


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-report",
        operand="DIR",
        common=("out", "baseline", "data_dir"),
        examples=("divco-report sweeps/digits --out=report.html", "divco-report runs/digits"),
    )


if __name__ == "__main__":
    run()
