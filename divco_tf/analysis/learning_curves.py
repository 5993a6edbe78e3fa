"""Error against the number of training images: power laws, and which arm wins with all images.

    error(n) = limit + scale * n^-exponent

is the form that test errors follow over training images (Hestness et al. 2017, arXiv 1712.00409; Hoiem et al. 2021,
arXiv 2010.11029, who find exponents near 0.5), and ensembles over members and width (Lobacheva et al. 2020, arXiv
2007.08483). Arms are trained on nested subsets with several seeds, and the law fitted to each tells what more images
would do. What comes out is a prediction: three sizes say little about the exponent, which the interval takes in.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from divco_tf.errors import InputError

# Before errors are seen, an exponent is 0.5 give or take 0.2: a normal prior, which holds few or noisy sizes together.
_EXPONENT = 0.5
_EXPONENT_SPREAD = 0.2
_EXPONENTS = (0.05, 2.0)

# Equal arms, of which either may seem to win, are then called in 1 to 4 of 100 (200 simulated pairs for each of two,
# three and six seeds and exponents of 0.3, 0.4 and 0.7); with 0.975, in 2 to 7.
_CALLED = 0.99


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """error(n) = limit + scale * n^-exponent, in shares of wrong predictions.

    Attributes:
      limit: the error with ever more images, 0 or more.
      scale: 0 or more; 0 is an error that more images do not change.
      exponent: from 0.05 to 2.
    """

    limit: float
    scale: float
    exponent: float

    def __call__(self, images: float) -> float:
        """The error with so many training images."""
        return self.limit + self.scale * images**-self.exponent


@dataclasses.dataclass(frozen=True)
class Extrapolation:
    """An arm's error with all images, predicted.

    Attributes:
      error: by the law fitted to the mean over seeds.
      low: where the 95 % interval begins.
      high: where it ends.
      law: the fitted one.
    """

    error: float
    low: float
    high: float
    law: PowerLaw


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Which arm has the lowest error with all images. Nothing here was measured with so many.

    Attributes:
      images: how many all are.
      arms: name to its predicted error.
      likeliest: the arm that has the lowest error most often, over what the data leave open.
      probability: how often.
      winner: `likeliest` if its probability is 0.99 or more, else None: too close to call.
      sentence: for people.
    """

    images: int
    arms: dict[str, Extrapolation]
    likeliest: str
    probability: float
    winner: str | None
    sentence: str


def fit(sizes: Sequence[int], errors: np.ndarray) -> PowerLaw:
    """The likeliest power law of one arm, for the mean over seeds.

    For a given exponent the other two numbers are a non-negative least-squares problem (variable projection, Golub and
    Pereyra 1973), so that only the exponent is searched: squared residuals over the seeds' variance of the mean, pooled
    over sizes, plus the squared distance of the exponent from 0.5 over that of the prior, 0.2. Two sizes say nothing
    about the exponent, and get 0.5.

    Args:
      sizes: training images, two sizes or more, increasing.
      errors: shares of wrong predictions `[seeds, sizes]`, two seeds or more.

    Raises:
      InputError: sizes or errors that do not fit.
    """
    sizes, errors = _checked_sizes(sizes), _checked(errors, sizes)
    return _fit(sizes, errors.mean(axis=0), _error_of_mean(errors), _EXPONENT)


def predict(
    errors: Mapping[str, np.ndarray], *, sizes: Sequence[int], images: int, seed: int = 0, replicates: int = 500
) -> Prediction:
    """Extrapolates every arm to all images, and says which wins.

    Each replicate draws, for all arms alike, weights of the seeds (their means then vary as Student's t with seeds - 1
    degrees of freedom, where resampling two or three seeds would vary too little) and an exponent of the prior, and
    fits all arms again; so what comes out are draws from about the posterior distribution (randomised maximum a
    posteriori, Bardsley et al. 2014, doi 10.1137/140964023).

    From 1,000, 2,500 and 5,000 images with a noise of 0.4 points to 50,000, for exponents of 0.5 +- 0.15, the interval
    held the planted error in 92 to 95 % of simulated arms, and was 12, 6 and 4 points wide for two, three and six
    seeds. Misfit is not in it: a law that holds up to the largest size may break beyond.

    Args:
      errors: arm to its shares of wrong predictions `[seeds, sizes]`; two seeds or more, the same for all arms.
      sizes: training images, two sizes or more, increasing.
      images: how many all are, no fewer than the largest size.
      seed: of the draws; the same gives the same prediction.
      replicates: how many draws.

    Raises:
      InputError: no arm, arms of different shapes, or sizes or errors that do not fit.
    """
    sizes = _checked_sizes(sizes)
    arms = {name: _checked(of_arm, sizes) for name, of_arm in errors.items()}
    if len({of_arm.shape for of_arm in arms.values()}) != 1:
        shapes = {name: list(of_arm.shape) for name, of_arm in arms.items()}
        raise InputError(f"Arms are none, or not paired. Received: {shapes}; pass the same seeds for every arm.")
    if images < sizes[-1]:
        raise InputError(f"That is fewer images than were tried. Received: {images}; pass {sizes[-1]:g} or more.")
    # numpy may change its generators' streams with a version (NEP 19), so training draws by others; an interval's ends
    # would change within what more replicates would change them.
    rng = np.random.default_rng(seed)
    seeds = len(next(iter(arms.values())))
    weights = rng.normal(size=[replicates, seeds])
    weights *= np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=[replicates, 1]) / (seeds * (seeds - 1)))
    exponents = rng.normal(_EXPONENT, _EXPONENT_SPREAD, size=replicates)
    drawn = {
        name: np.array([min(law(images), 1.0) for law in _replicates(sizes, of_arm, weights, exponents)])
        for name, of_arm in arms.items()
    }
    extrapolations = {}
    for name, of_arm in arms.items():
        law = _fit(sizes, of_arm.mean(axis=0), _error_of_mean(of_arm), _EXPONENT)
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        extrapolations[name] = Extrapolation(law(images), float(low), float(high), law)
    return _prediction(images, extrapolations, drawn)


def _fit(sizes: np.ndarray, means: np.ndarray, error: float, center: float) -> PowerLaw:
    from scipy import optimize

    ratios = sizes / sizes[-1]

    def law_of(exponent: float) -> tuple[np.ndarray, float]:
        return optimize.nnls(np.column_stack([np.ones_like(ratios), ratios**-exponent]), means)

    def distance(exponent: float) -> float:
        return (law_of(exponent)[1] / error) ** 2 + ((exponent - center) / _EXPONENT_SPREAD) ** 2

    exponent = float(optimize.minimize_scalar(distance, bounds=_EXPONENTS, method="bounded").x)
    limit, scale = law_of(exponent)[0]
    return PowerLaw(float(limit), float(scale * sizes[-1] ** exponent), exponent)


def _replicates(sizes: np.ndarray, errors: np.ndarray, weights: np.ndarray, exponents: np.ndarray) -> list[PowerLaw]:
    error = _error_of_mean(errors)
    means = errors.mean(axis=0) + weights @ (errors - errors.mean(axis=0))
    return [_fit(sizes, of_replicate, error, center) for of_replicate, center in zip(means, exponents, strict=True)]


def _error_of_mean(errors: np.ndarray) -> float:
    """Of the mean over seeds, pooled over sizes; a millionth at least, where seeds do not differ."""
    return max(float(np.sqrt(errors.var(axis=0, ddof=1).mean() / len(errors))), 1e-6)


def _prediction(images: int, arms: dict[str, Extrapolation], drawn: dict[str, np.ndarray]) -> Prediction:
    values = np.array(list(drawn.values()))
    lowest = values == values.min(axis=0)
    wins = np.mean(lowest & (lowest.sum(axis=0) == 1), axis=1)  # nobody wins a tie
    likeliest, probability = list(drawn)[int(wins.argmax())], float(wins.max())
    winner = likeliest if len(arms) > 1 and probability >= _CALLED else None
    told = ", ".join(
        f"{name} {100 * arm.error:.1f} % ({100 * arm.low:.1f} to {100 * arm.high:.1f})" for name, arm in arms.items()
    )
    verdict = f"{winner} wins" if winner else "too close to call" if len(arms) > 1 else "nothing to compare with"
    sentence = f"Predicted error with {images:,} images, not measured: {told}; {verdict}"
    if len(arms) > 1:
        sentence += f" ({likeliest} has the lowest with a probability of {probability:.2f})"
    return Prediction(images, arms, likeliest, probability, winner, sentence)


def _checked_sizes(sizes: Sequence[int]) -> np.ndarray:
    numbers = np.asarray(sizes)
    if numbers.ndim != 1 or len(numbers) < 2 or numbers.dtype.kind not in "iu" or np.any(np.diff(numbers) <= 0):
        raise InputError(f"Sizes make no curve. Received: {sizes!r}; pass two or more, increasing: [1000, 2500, 5000].")
    if numbers[0] < 1:
        raise InputError(f"A size is no number of images. Received: {sizes!r}; pass sizes from 1.")
    return numbers.astype(np.float64)


def _checked(errors: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    errors = np.asarray(errors)
    if errors.ndim != 2 or len(errors) < 2 or errors.shape[1] != len(sizes) or errors.dtype.kind not in "fiu":
        raise InputError(
            f"Errors make no curve. Received: {errors.dtype} {list(errors.shape)} for {len(sizes)} sizes; pass numbers "
            "[seeds, sizes], two seeds at least, since one says nothing about uncertainty."
        )
    if not np.all((errors >= 0) & (errors <= 1)):
        raise InputError(
            f"Errors lie outside 0..1. Received: values from {errors.min()} to {errors.max()}; pass shares of wrong "
            "predictions."
        )
    return errors.astype(np.float64)
