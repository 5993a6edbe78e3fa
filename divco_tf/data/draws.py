"""Random numbers of a batch: hashes of (what for, seed, step, ...) and a counter, the same with every release of numpy.

The hash is that of the kernels (`views.kernels.random_numbers.fold`), in Python's integers: a step draws a few dozen.
"""

import math

# Keys that set the draws of a kind apart from the others', and from those of views.
ORDER, MIXING, BATCH_OPERATION, CORRUPTION, SUBSET = (
    int.from_bytes(kind, "big") for kind in (b"order", b"mixing", b"batch", b"corrupt", b"subset")
)

_WORD = 2**64 - 1
_GOLDEN, _FACTOR_1, _FACTOR_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def fold(key: int, *counters: int) -> int:
    """A new key of 64 bits from a key and counters, one after the other; all of them modulo 2**64."""
    for counter in counters:
        bits = (key + (counter + 1) * _GOLDEN) & _WORD
        bits = ((bits ^ (bits >> 30)) * _FACTOR_1) & _WORD
        bits = ((bits ^ (bits >> 27)) * _FACTOR_2) & _WORD
        key = bits ^ (bits >> 31)
    return key


class Draws:
    """Numbers of a key and the counters 0, 1, 2, ...

    Args:
      key: of 64 bits.
    """

    def __init__(self, key: int) -> None:
        self._key, self._counter = key, -1

    def uniform(self) -> float:
        """In [0, 1), of 53 bits."""
        self._counter += 1
        return (fold(self._key, self._counter) >> 11) * 2.0**-53

    def normal(self) -> float:
        """Of mean 0 and variance 1 (Box and Muller)."""
        radius = math.sqrt(-2 * math.log(1 - self.uniform()))
        return radius * math.cos(2 * math.pi * self.uniform())

    def beta(self, alpha: float) -> float:
        """Of the Beta distribution with both parameters `alpha` > 0, in [0, 1].

        X / (X + Y) of two Gamma variates; those of a shape below 1 are of shape + 1, times U ** (1 / shape). They are
        kept as logarithms, since for a small alpha both are too small for a float.
        """
        shape = alpha + 1 if alpha < 1 else alpha
        difference = self._log_gamma(shape) - self._log_gamma(shape)
        if alpha < 1:
            difference += (math.log(1 - self.uniform()) - math.log(1 - self.uniform())) / alpha
        return 1 / (1 + math.exp(min(difference, 700.0)))

    def _log_gamma(self, shape: float) -> float:
        """The logarithm of a Gamma variate, shape >= 1: Marsaglia and Tsang, ACM TOMS 26(3), 2000."""
        d = shape - 1 / 3
        c = 1 / math.sqrt(9 * d)
        while True:
            normal = self.normal()
            v = (1 + c * normal) ** 3
            if v > 0 and math.log(1 - self.uniform()) < normal**2 / 2 + d * (1 - v + math.log(v)):
                return math.log(d * v)
