"""What earlier releases left: runs and exports, packed, and what the release itself said of them.

`<release>/<name>.tar.xz` holds a model_dir `<name>`, its export `exports/<name>` where one was made, and the `.gin`
that was trained; `<release>/told.json` what the release answered to `IMAGES` and how it evaluated, for the run as it
lies there and for the run that the release took to its end (0.2.0 for those of 0.1.0, whose order of images it does
not have).
"""

import json
import pathlib
import tarfile
from typing import Any

import numpy as np

from tests.reference import DATA

RELEASES = ("v0.1.0", "v0.2.0")
IMAGES = np.stack([(np.arange(8 * 8 * 3) * factor % 251).astype(np.uint8).reshape(8, 8, 3) for factor in (7, 13, 19)])


def unpacked(release: str, name: str, folder: pathlib.Path) -> pathlib.Path:
    """The archive's content, in `folder`: the run is in `folder / name`."""
    with tarfile.open(DATA / release / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def told(release: str, about: str) -> dict[str, Any]:
    """What the release said: about "runs", "ended" (runs at their end) or "exports", by name."""
    return json.loads((DATA / release / "told.json").read_text())[about]
