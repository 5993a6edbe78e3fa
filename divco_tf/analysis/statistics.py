"""Two arms of an experiment compared over seeds and test images: the difference, its interval, and tests.

An arm is a setting (S = 4, say) trained with several seeds and scored on the same test images: a score for each seed
and image, higher is better. Seed s of one arm is paired with seed s of the other, image i with image i, and all is
about the differences d[s, i]. Seeds and images are crossed, since every seed is scored on the same images:

    d[s, i] = difference + seed[s] + image[i] + rest[s, i]

The variance of the mean over n seeds and N images is var(seed) / n + var(image) / N + var(rest) / (n N). Resampling
images for each seed by itself would divide an image's effect by n, as if seeds had images of their own; resampling rows
and columns of d (the pigeonhole bootstrap, Owen 2007, doi 10.1214/07-AOAS122) counts the rest three times. Here

- seeds' means are resampled, whose spread holds the rest, once; the mean of n resampled values varies too little, so
  they are stretched by sqrt(n / (n - 1));
- images' means are resampled, shrunk to the spread that images have beyond the rest (Carpenter, Goldstein and Rasbash
  2003, Applied Statistics 52, rescale estimated effects so);
- of the sum of both, a BCa interval (Efron 1987) is taken, with the tails where Student's t has 2.5 %, on
  Satterthwaite's degrees of freedom (expanded intervals, Hesterberg 2015, arXiv 1411.5279).

Coverage of the 95 % interval, in 1,000 simulated tables of 0/1 scores each of 360 and of 10,000 images (images of many
difficulties, which both arms share; seeds' accuracies with a standard deviation of 0.4 points; with and without effects
of images on the difference; normal and exponential seeds): 0.92 to 0.96 for six seeds and more, where an interval
without stretching and expansion has 0.87 to 0.91 if seeds make the noise. Three to five seeds have 0.92 to 0.96, two
0.87 to 0.93. One seed has 0.93 where images make the noise (360) and 0.66 where seeds do: other seeds are not covered.
"""

import dataclasses

import numpy as np

from divco_tf.errors import InputError

LEVEL = 0.05
POWER = 0.8
FEWEST_SEEDS = 6  # n seeds have 2^n sign flips, so p is 2 / 2^n at least: 0.0625 for five, 0.031 for six

_MOST_FLIPS = 2**14  # all of them for 14 seeds or fewer, as many at random for more

# How many standard errors a difference must have for the sign-flip test to see it with 80 % power, where few seeds make
# that harder than Student's t test does; by 20,000 draws of normal seeds. From 11 on the formula is within 1 %.
_FEW_SEEDS = {6: 4.41, 7: 3.58, 8: 3.41, 9: 3.30, 10: 3.20}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Arm A against arm B: means of A's scores minus B's, in units of the scores.

    Attributes:
      difference: over all seeds and images; above 0, A is better.
      low: where the 95 % interval of `difference` begins. With one seed it covers other images only, not other seeds.
      high: where it ends.
      seed_error: the part of the standard error that seeds and the rest make; 0 with one seed, which cannot tell.
      image_error: the part that images make; with one seed, images and the rest. The whole is the root of the sum of
        both squares.
      t_p: two-sided p of Student's t test, over seeds and images.
      sign_flip_p: two-sided p of the sign-flip test over seeds; 2 / 2^seeds at least.
      smallest_difference: what would have been seen with 80 % power (`smallest_difference`); inf for fewer than six
        seeds, with which nothing is seen.
      seeds: how many.
      images: how many.
    """

    difference: float
    low: float
    high: float
    seed_error: float
    image_error: float
    t_p: float
    sign_flip_p: float
    smallest_difference: float
    seeds: int
    images: int


def compare(a: np.ndarray, b: np.ndarray, *, seed: int = 0, resamples: int = 5000) -> Comparison:
    """Compares two arms, paired by seed and by test image, as the module's docstring tells.

    One seed has an interval over images only. Of two to five seeds there are too few different resamples for 95 %, and
    the interval is Student's. Where no difference varies it is a point, and `t_p` is 0, or 1 if the point is 0.

    Args:
      a: scores `[seeds, N]`, bool or numbers, higher is better: 1 for a right prediction and 0 for a wrong one, or the
        log-likelihood of the right class. Two images at least.
      b: the other arm's, of the same seeds and images in the same order.
      seed: of the resampling; the same gives the same numbers.
      resamples: of the bootstrap.

    Raises:
      InputError: shapes or values that do not fit.
    """
    from scipy import stats

    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1000:
        raise InputError(f"Too few resamples for the tails of an interval. Received: {resamples!r}; pass 5000.")
    differences = _checked(a, b)
    seeds, images = differences.shape
    difference = float(differences.mean())
    effects = _effects(differences)
    seed_error, image_error = (float(np.sqrt(np.sum(part**2)) / len(part)) for part in effects)
    error = float(np.hypot(seed_error, image_error))
    if error < 1e-12 * np.max(np.abs(differences)):
        seed_error = image_error = error = 0.0  # what rounding left of equal differences
    freedom = _degrees_of_freedom(seed_error, image_error, seeds=seeds, images=images)
    quantile = stats.t.ppf(1 - LEVEL / 2, freedom)
    interval = difference - quantile * error, difference + quantile * error
    if error and (seeds == 1 or seeds >= FEWEST_SEEDS):
        replicates = difference + _resampled_means(effects, resamples, seed)
        influences = np.concatenate([part / len(part) for part in effects])
        interval = _bca_interval(difference, replicates, influences, tail=stats.norm.cdf(-quantile))
    return Comparison(
        difference=difference,
        low=float(interval[0]),
        high=float(interval[1]),
        seed_error=seed_error,
        image_error=image_error,
        t_p=float(2 * stats.t.sf(abs(difference) / error, freedom)) if error else float(difference == 0),
        sign_flip_p=sign_flip_p(differences.mean(axis=1), seed=seed),
        smallest_difference=smallest_difference(seed_error, image_error, seeds=seeds, images=images),
        seeds=seeds,
        images=images,
    )


def sign_flip_p(differences: np.ndarray, *, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test (Fisher's randomisation test) that paired differences lie around 0.

    Of all 2^n changes of signs, the share whose mean is as far from 0 or farther; exact for 14 differences or fewer, by
    16,384 random changes for more. Nothing is assumed but that A and B could be exchanged in each pair if they did not
    differ. Six differences are the fewest that reach 0.05; one has 1.

    Args:
      differences: A minus B `[n]`, one a seed.
      seed: of the random changes.

    Raises:
      InputError: not a list of finite numbers, or an empty one.
    """
    from scipy import stats

    differences = np.asarray(differences)
    if differences.ndim != 1 or not differences.size or differences.dtype.kind not in "fiu":
        raise InputError(
            f"Differences for a sign-flip test have the wrong shape or type, or there are none. Received: "
            f"{differences.dtype} {list(differences.shape)}; pass one number a seed."
        )
    if not np.all(np.isfinite(differences)):
        raise InputError(f"Differences are not finite. Received: {differences.tolist()}; pass finite numbers.")
    if len(differences) == 1:  # scipy refuses one
        return 1.0
    test = stats.permutation_test(
        (differences.astype(np.float64),),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_MOST_FLIPS,
        batch=1024,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def smallest_difference(
    seed_error: float, image_error: float, *, seeds: int, images: int, comparisons: int = 1
) -> float:
    """The smallest difference that a verdict sees with 80 % power, given the spread that the data had.

    The larger of what Student's t test and the sign-flip test need: standard errors times t(1 - 0.05 / 2 m) + t(0.8),
    with quantiles of Student's t for m comparisons (Bloom 1995, doi 10.1177/0193841X9501900504); and seed errors times
    a number for each number of seeds (4.41 for six), with image errors times the normal quantile of 0.8 in quadrature.
    Of planted differences of this size, 74 to 82 % were seen in 1,000 tables each of six to twelve seeds, with seeds,
    images or both making the noise, alone and among five. inf for fewer than six seeds.

    Args:
      seed_error, image_error: as in `Comparison`.
      seeds: how many.
      images: how many.
      comparisons: how many stand in the table, as Holm's correction takes them at worst.
    """
    from scipy import stats

    if seeds < FEWEST_SEEDS:
        return float("inf")
    freedom = _degrees_of_freedom(seed_error, image_error, seeds=seeds, images=images)
    factor = float(stats.t.ppf(1 - LEVEL / 2 / comparisons, freedom) + stats.t.ppf(POWER, freedom))
    flips = np.hypot(_FEW_SEEDS.get(seeds, 0) * seed_error, stats.norm.ppf(POWER) * image_error)
    return max(factor * float(np.hypot(seed_error, image_error)), float(flips))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's correction of the p-values of one table (Holm 1979, Scandinavian Journal of Statistics 6(2)).

    Whoever calls all below 0.05 significant is wrong about any with a probability of 0.05 at most.

    Args:
      p_values: `[M]`, from 0 to 1.

    Returns:
      float64 `[M]`, in the same order.

    Raises:
      InputError: not a list of probabilities.
    """
    p_values = np.asarray(p_values, np.float64)
    if p_values.ndim != 1 or not np.all((p_values >= 0) & (p_values <= 1)):
        raise InputError(f"These are no p-values. Received: {p_values.tolist()}; pass a list of numbers from 0 to 1.")
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps * p_values[order]), 1)
    return corrected


def _checked(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The differences, float64 [seeds, N]."""
    a, b = np.asarray(a), np.asarray(b)
    fits = a.shape == b.shape and a.ndim == 2 and a.shape[0] >= 1 and a.shape[1] >= 2
    if not fits or a.dtype.kind not in "bfiu" or b.dtype.kind not in "bfiu":
        raise InputError(
            f"Scores of two arms do not fit each other, or are none. Received: {a.dtype} {list(a.shape)} and {b.dtype} "
            f"{list(b.shape)}; pass numbers [seeds, N] of the same seeds and images, two images at least."
        )
    differences = a.astype(np.float64) - b.astype(np.float64)
    if not np.all(np.isfinite(differences)):
        raise InputError(
            f"Scores are not finite. Received: {np.sum(~np.isfinite(differences))} differences of "
            f"{differences.size} that are NaN or infinite; a likelihood of 0 needs a floor before its logarithm."
        )
    return differences


def _effects(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Effects of seeds [n] and of images [N], scaled so that resampled means vary as the model's two parts do."""
    seeds, images = differences.shape
    mean = differences.mean()
    of_seeds, of_images = differences.mean(axis=1) - mean, differences.mean(axis=0) - mean
    variance = np.sum(of_images**2) / (images - 1)
    if seeds > 1:
        rest = differences - of_seeds[:, np.newaxis] - of_images - mean
        of_rest = np.sum(rest**2) / ((seeds - 1) * (images - 1))
        # Method of moments; the estimate of a variance may come out negative, and is 0 then.
        variance = max(variance - of_rest / seeds, 0.0)
        of_seeds = of_seeds * np.sqrt(seeds / (seeds - 1))
    spread = np.mean(of_images**2)
    return of_seeds, of_images * np.sqrt(variance / spread if spread else 0.0)


def _degrees_of_freedom(seed_error: float, image_error: float, *, seeds: int, images: int) -> float:
    """Satterthwaite's, of the variance that is the sum of both squared errors (Satterthwaite 1946)."""
    if seeds == 1:
        return images - 1.0
    if not seed_error and not image_error:
        return seeds - 1.0
    largest = max(seed_error, image_error)  # the ratio does not underflow
    of_seeds, of_images = (seed_error / largest) ** 2, (image_error / largest) ** 2
    return (of_seeds + of_images) ** 2 / (of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1))


def _resampled_means(effects: tuple[np.ndarray, np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """Mean of resampled seeds plus mean of resampled images, float64 [resamples]."""
    # numpy may change its generators' streams with a version (NEP 19), so training draws by others; an interval's ends
    # would change within what more resamples would change them.
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for part in effects:
        if np.any(part):
            rows = max(1, 2**19 // len(part))  # a block at a time: all at once need resamples x N numbers
            blocks = [
                part[rng.integers(len(part), size=(min(rows, resamples - start), len(part)), dtype=np.int32)].mean(
                    axis=1
                )
                for start in range(0, resamples, rows)
            ]
            means += np.concatenate(blocks)
    return means


def _bca_interval(estimate: float, replicates: np.ndarray, influences: np.ndarray, *, tail: float) -> np.ndarray:
    """Bias-corrected and accelerated (Efron and Tibshirani 1993, section 14.3), low and high.

    scipy.stats.bootstrap has it, but leaves out each of N images in turn, N^2 numbers, where a mean's influences are
    known, and cannot be asked for effects of two kinds in different numbers.
    """
    from scipy import stats

    rounding = 1e-9 * np.std(replicates)  # resamples of the same sum are equal
    share = (np.mean(replicates < estimate - rounding) + np.mean(replicates <= estimate + rounding)) / 2
    bias = stats.norm.ppf(share)
    acceleration = np.sum(influences**3) / (6 * np.sum(influences**2) ** 1.5)
    shifted = bias + stats.norm.ppf([tail, 1 - tail])
    return np.quantile(replicates, stats.norm.cdf(bias + shifted / (1 - acceleration * shifted)))
