"""What the toy configs configure."""

import dataclasses

from divco_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Rate:
    peak: float
    rule: str = "cos"

    def __post_init__(self):
        if self.peak < 0:
            raise InputError(f"The peak is negative. Received: {self.peak}; 0.1 works.")


def train(rate=None, epochs=1, size=2, *, name="toy"):
    return rate, epochs, size, name
