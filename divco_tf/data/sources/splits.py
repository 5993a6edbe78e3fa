"""How stored examples are parted into splits."""

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np


def shares(keys: Iterable[str], *, purpose: str) -> np.ndarray:
    """A stable pseudo-random number in [0, 1) for each key, float64; independent between purposes.

    A split by these depends neither on the order of the keys nor on the machine.
    """
    # Unicode spells "é" in two ways, and file systems differ in which one they hand out.
    texts = (f"{purpose}/{unicodedata.normalize('NFC', key)}" for key in keys)
    encoded = (text.encode("utf-8", "surrogateescape") for text in texts)  # a file's name may be no UTF-8
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in encoded)
    # 53 bits, so that the largest one stays below 1 in float64.
    return (np.frombuffer(digests, np.dtype("<u8")) >> np.uint64(11)) * 2.0**-53


def in_split(keys: list[str], split: str, *, held_out: float, test_share: float) -> np.ndarray:
    """Which of the stored examples, named by `keys`, belong to `split`: bool [N].

    `test_share` is set apart first (0 where test images are stored on their own), then `held_out` of the rest.
    """
    tested = shares(keys, purpose="test") < test_share
    held = shares(keys, purpose="held_out") < held_out
    return {"test": tested, "held_out": ~tested & held, "train": ~tested & ~held}[split]
