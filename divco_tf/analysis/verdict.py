"""Does it pay? A word and a sentence for each comparison of a table.

The word is "pays" or "does not pay" if three things hold, and "no difference seen" otherwise:

- the 95 % interval excludes 0;
- the sign-flip test over seeds, which assumes no distribution, has p <= 0.05;
- Student's t test has p <= 0.05 after Holm's correction for all comparisons of the table.

Holm's correction of the sign-flip test itself would let no table of two comparisons say anything with six seeds, whose
p is 2/64 at least. As it is, the sign-flip test bounds the mistakes of each comparison, whatever seeds do to it, and
Student's those of a table.

Measured on simulated S = 1 against S = 1 with six seeds (as for `statistics`): "no difference seen" in 98.4 % of 2,000
tables of 360 images and 97.2 % of 1,000 of 10,000. A planted difference of two interval widths was found in all of 500
tables of each, one of one width in 91 %. Of 500 tables of two or eight arms that do not differ from a common one, with
six, eight or twelve seeds, 2 to 6 % had any other verdict.
"""

import dataclasses
import math
from collections.abc import Mapping

from divco_tf.analysis.statistics import FEWEST_SEEDS, LEVEL, Comparison, holm, smallest_difference
from divco_tf.errors import InputError

PAYS = "pays"
DOES_NOT_PAY = "does not pay"
NOTHING_SEEN = "no difference seen"

_UNITS = {"points": 100.0, "nats": 1.0}
_NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a comparison says.

    Attributes:
      word: "pays", "does not pay" or "no difference seen".
      sentence: for people: "S=4 pays: +1.2 points (95 % interval 0.5 to 1.9, six seeds)".
      comparison: what it is said of.
      corrected_p: `comparison.t_p` after Holm's correction.
      smallest_difference: what would have been seen with 80 % power among the comparisons of this table, in units of
        the scores; inf for fewer than six seeds.
    """

    word: str
    sentence: str
    comparison: Comparison
    corrected_p: float
    smallest_difference: float


def verdict(comparison: Comparison, *, name: str, unit: str = "points") -> Verdict:
    """The verdict on one comparison that stands alone: `verdicts` of a table of one."""
    return verdicts({name: comparison}, unit=unit)[name]


def verdicts(comparisons: Mapping[str, Comparison], *, unit: str = "points") -> dict[str, Verdict]:
    """The verdicts on a table of comparisons, as the module's docstring tells.

    Args:
      comparisons: name of arm A ("S=4") to its comparison with the arm that all are compared with.
      unit: of the sentences: "points" (hundredths, for scores of 0 and 1) or "nats" (for log-likelihoods).

    Returns:
      A verdict for each name, in the same order.

    Raises:
      InputError: a unit that is neither.
    """
    if unit not in _UNITS:
        raise InputError(f"No such unit. Received: {unit!r}; pass one of {', '.join(map(repr, _UNITS))}.")
    corrected = holm([comparison.t_p for comparison in comparisons.values()])
    made = {}
    for (name, comparison), p in zip(comparisons.items(), corrected, strict=True):
        smallest = smallest_difference(
            comparison.seed_error,
            comparison.image_error,
            seeds=comparison.seeds,
            images=comparison.images,
            comparisons=len(comparisons),
        )
        word = _word(comparison, p)
        sentence = _sentence(name, word, comparison, smallest, unit)
        made[name] = Verdict(word, sentence, comparison, float(p), smallest)
    return made


def _word(comparison: Comparison, corrected_p: float) -> str:
    excludes_zero = comparison.low > 0 or comparison.high < 0
    if not (excludes_zero and comparison.sign_flip_p <= LEVEL and corrected_p <= LEVEL):
        return NOTHING_SEEN
    return PAYS if comparison.difference > 0 else DOES_NOT_PAY


def _sentence(name: str, word: str, comparison: Comparison, smallest: float, unit: str) -> str:
    scale = _UNITS[unit]
    values = [scale * value for value in (comparison.difference, comparison.low, comparison.high)]
    width = values[2] - values[1] or abs(values[0]) or 1.0
    decimals = max(0, 1 - math.floor(math.log10(width)))  # the interval's width has two digits
    difference, low, high = (f"{round(value, decimals) + 0.0:.{decimals}f}" for value in values)  # + 0.0: no "-0.0"
    seeds = _NUMBERS[comparison.seeds] if comparison.seeds < len(_NUMBERS) else str(comparison.seeds)
    counted = f"{seeds} seed{'s' * (comparison.seeds > 1)}"
    covered = " over images only" if comparison.seeds == 1 else ""
    sign = "+" if values[0] > 0 else ""
    numbers = f"{sign}{difference} {unit} (95 % interval{covered} {low} to {high}, {counted})"
    if word != NOTHING_SEEN:
        return f"{name} {word}: {numbers}"
    if comparison.seeds < FEWEST_SEEDS:
        return f"{name}: {word}, {numbers}; fewer than {_NUMBERS[FEWEST_SEEDS]} seeds cannot show one"
    return f"{name}: {word}, {numbers}; {scale * smallest:.{decimals}f} {unit} would have been seen"
