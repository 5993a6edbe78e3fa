"""The paper's facts as data: numbers obtained by running the authors' reference, none of its code."""

import functools
import gzip
import json
import pathlib
from typing import Any

import numpy as np

DATA = pathlib.Path(__file__).parent / "data"


@functools.cache
def load_json(name: str) -> Any:
    """The content of `data/<name>` (`.json` or `.json.gz`)."""
    path = DATA / name
    if path.suffix == ".gz":
        return json.loads(gzip.decompress(path.read_bytes()))
    return json.loads(path.read_text())


@functools.cache
def load_npz(name: str) -> dict[str, np.ndarray]:
    """All arrays of `data/<name>`."""
    with np.load(DATA / name) as arrays:
        return dict(arrays)
