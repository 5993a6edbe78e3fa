"""How often what is drawn, as p-values over 10^5 views: `python -m tests.data.views.frequencies` prints them (minutes).

Seed 1, since the signs of seed 0's first 100,352 views lie 4.2 standard deviations off. That is chance: over the next
40 million views of seed 0 they lie 1.2 off, and over 1,500 seeds they are as a normal number is (variance 0.99). So the
second table tells whether the p-values of 40 seeds, 0 among them, are spread evenly from 0 to 1, as they should be.
"""

import itertools

import numpy as np
from scipy import stats

from divco_tf.data.views.augmentations import get_augmentation
from divco_tf.data.views.kernels import augment
from divco_tf.data.views.kernels.random_numbers import uniform, view_keys
from divco_tf.data.views.operations import BUILT_IN
from divco_tf.data.views.schema import Augmentation, Range, Space, Step
from tests.data.views.kernels.operated import table_of

POLICIES = (
    "auto_augment_cifar10",
    "auto_augment_svhn",
    "auto_augment_imagenet",
    "rand-m9-mstd0.5",
    "rand-m6-mstd3-n3-inc1",  # a wide Gaussian: cut off at both ends
    "trivial_augment",
)
STEPS, BATCH_SIZE, SPLIT_FACTOR = 49, 512, 4
SEED, SEEDS = 1, 40


def keys(seed: int = SEED) -> np.ndarray:
    """The keys of 100,352 views, uint64 [steps, B, S]."""
    sizes = {"batch_size": BATCH_SIZE, "split_factor": SPLIT_FACTOR}
    return np.stack([view_keys(seed=seed, step=step, **sizes) for step in range(STEPS)])


def p_values(name: str, seed: int = SEED) -> dict[str, float]:
    """Of an augmentation's draws against its table, by what is drawn; a draw that is none is left out."""
    augmentation = get_augmentation(name)
    steps = [step for sub_policy in augmentation.sub_policies for step in sub_policy]
    spans = [augmentation.space.ranges[step.operation] for step in steps]
    codes, levels, _ = _always(augmentation, keys(seed))
    rows = codes[:, :: len(augmentation.sub_policies[0])] // len(augmentation.sub_policies[0])
    found = {
        "sub-policies": stats.chisquare(np.bincount(rows.ravel(), minlength=len(augmentation.sub_policies))).pvalue
    }
    offered = np.bincount(codes.ravel(), minlength=len(steps))
    codes, signs, resamplings = _applied(augmentation, keys(seed))
    applied = np.bincount(codes, minlength=len(steps))
    share = np.array([step.probability for step in steps])
    assert (applied[share == 1] == offered[share == 1]).all() and not applied[share == 0].any()
    if (share < 1).any():
        found["steps"] = _coins(applied, offered, share)
    signed = np.array([span.signed for span in spans])
    assert (signs[~signed[codes]] > 0).all()
    if signed.any():
        found["signs"] = stats.binomtest(int((signs < 0).sum()), int(applied[signed].sum())).pvalue
    either = np.array([len(span.resampling) == 2 for span in spans])
    if either.any():
        bicubic = (resamplings == 2) & either[codes]
        found["resamplings"] = stats.binomtest(int(bicubic.sum()), int(applied[either].sum())).pvalue
    return found | _levels(levels.ravel(), steps[0], augmentation.space.top)


def independence(seed: int = SEED) -> dict[str, float]:
    """Of all correlations between two draws of a view, and of two views, being those of independent draws."""
    draws = _standardised(_draws(keys(seed)))  # [steps, B, S, draws]
    other = _standardised(_draws(keys(seed + 1)))
    one_draw_before_the_other = np.triu_indices(draws.shape[-1], 1)
    branches = [
        _correlations(draws[:, :, i], draws[:, :, j]) for i, j in itertools.combinations(range(SPLIT_FACTOR), 2)
    ]
    deviates = {
        "draws of a view": _correlations(draws, draws)[one_draw_before_the_other],
        "branches": np.stack(branches),
        "positions": _correlations(draws[:, :-1], draws[:, 1:]),
        "steps": _correlations(draws[:-1], draws[1:]),
        "seeds": _correlations(draws, other),
    }
    return {name: stats.chi2.sf((z**2).sum(), z.size) for name, z in deviates.items()}


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of all draws of one kind of views with those of their partners, times sqrt(n): standard normal numbers."""
    first, second = (draws.reshape(-1, draws.shape[-1]) for draws in (first, second))
    return first.T @ second / np.sqrt(len(first))


def _always(augmentation: Augmentation, view_keys: np.ndarray) -> tuple[np.ndarray, ...]:
    """The table with certain steps whose arguments are their levels: number of the step, level and resampling."""
    table = _numbered(augmentation)
    table[..., augment.PROBABILITY] = 1
    table[..., augment.LOW], table[..., augment.HIGH] = 0, table[..., augment.TOP]
    table[..., augment.SIGNED] = table[..., augment.OFFSET] = table[..., augment.ROUNDING] = 0
    records, _ = _records(table, augmentation.draws, view_keys)
    return records[..., 0].astype(int), records[..., 1], records[..., 2]


def _applied(augmentation: Augmentation, view_keys: np.ndarray) -> tuple[np.ndarray, ...]:
    """What is applied, as the table has it: number of the step, sign and resampling, of all views in a row."""
    table = _numbered(augmentation)
    table[..., augment.LOW] = table[..., augment.HIGH] = 1
    table[..., augment.OFFSET] = table[..., augment.ROUNDING] = 0
    records, counts = _records(table, augmentation.draws, view_keys)
    kept = records[np.arange(records.shape[1]) < counts[:, None]]
    return kept[:, 0].astype(int), kept[:, 1], kept[:, 2]


def _numbered(augmentation: Augmentation) -> np.ndarray:
    """The table with each step's number for its code."""
    table = table_of(augmentation)
    assert (table[..., augment.CODE] >= 0).all()
    table[..., augment.CODE] = np.arange(table[..., 0].size).reshape(table.shape[:2])
    return table


def _records(table: np.ndarray, draws: int, view_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    records = np.zeros((view_keys.size, draws * table.shape[1], augment.RECORD))
    drawn = zip(view_keys.ravel(), records, strict=True)
    return records, np.array([augment.draw_steps(key, 0, table, draws, record) for key, record in drawn])


def _coins(heads: np.ndarray, tosses: np.ndarray, share: np.ndarray) -> float:
    """Of coins that fall on their heads with probability `share`, tossed so often."""
    tossed = (share > 0) & (share < 1) & (tosses > 0)
    heads, tosses, share = heads[tossed], tosses[tossed], share[tossed]
    return stats.chi2.sf(((heads - tosses * share) ** 2 / (tosses * share * (1 - share))).sum(), len(share))


def _levels(levels: np.ndarray, step: Step, top: int) -> dict[str, float]:
    if step.level is None:
        return {"levels": stats.chisquare(np.bincount(levels.astype(int), minlength=top + 1)).pvalue}
    if not step.std:
        return {}
    normal = stats.norm(step.level, step.std)
    inside = levels[(levels > 0) & (levels < top)]
    ends = np.array([normal.cdf(0), normal.cdf(top) - normal.cdf(0), normal.sf(top)])
    counts = np.array([(levels == 0).sum(), len(inside), (levels == top).sum()])
    likely = ends * levels.size > 5
    assert not counts[~likely].any()
    between = stats.truncnorm((0 - step.level) / step.std, (top - step.level) / step.std, step.level, step.std)
    return {
        "levels": stats.kstest(inside, between.cdf).pvalue,
        "levels cut off": stats.chisquare(counts[likely], ends[likely] / ends[likely].sum() * levels.size).pvalue,
    }


def _draws(view_keys: np.ndarray) -> np.ndarray:
    """Everything that is drawn for a view of two rounds of two steps, float64 [steps, B, S, draws]."""
    span = Range(0, 1, resampling=("bilinear", "bicubic"))
    space = Space(30, (0, 0, 0), dict.fromkeys(BUILT_IN[:16], span))
    pairs = zip(BUILT_IN[:16:2], BUILT_IN[1:16:2], strict=True)
    rows = tuple(tuple(Step(name, 0.5) for name in pair) for pair in pairs)
    augmentation = Augmentation(space, rows, draws=2)
    codes, levels, resamplings = _always(augmentation, view_keys)
    table = _numbered(augmentation)
    table[..., augment.LOW] = table[..., augment.HIGH] = table[..., augment.SIGNED] = 1
    table[..., augment.PROBABILITY] = 1
    signs = _records(table, 2, view_keys)[0][..., 1]
    table[..., augment.PROBABILITY] = 0.5
    records, counts = _records(table, 2, view_keys)
    _, first_round = _records(table, 1, view_keys)
    applied = np.zeros((view_keys.size, 4))
    for place in range(4):
        written = np.flatnonzero(place < counts)
        later = place >= first_round[written]
        applied[written, 2 * later + records[written, place, 0].astype(int) % 2] = 1
    counters = (*range(4), *range(16, 20))  # crop, mirror image, erasing and its first attempt
    others = [[uniform(key, np.uint64(counter)) for key in view_keys.ravel()] for counter in counters]
    columns = (codes[:, ::2] // 2, levels, resamplings, signs, applied, np.array(others).T)
    return np.concatenate(columns, axis=1).reshape(*view_keys.shape, -1)


def _standardised(draws: np.ndarray) -> np.ndarray:
    axes = tuple(range(draws.ndim - 1))
    return (draws - draws.mean(axes)) / draws.std(axes)


def table(found: dict[str, dict[str, float]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of p-values, by augmentation and what is drawn."""
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    cells = [[f"{row[column]:.3f}" if column in row else "" for column in columns] for row in found.values()]
    return ("", *columns), [(name, *row) for name, row in zip(found, cells, strict=True)]


def evenness(by_seed: list[dict[str, float]]) -> dict[str, float]:
    """Of p-values being spread evenly from 0 to 1."""
    return {key: stats.kstest([found[key] for found in by_seed], "uniform").pvalue for key in by_seed[0]}


if __name__ == "__main__":
    from divco_tf.tools.shared.tables import markdown_table

    print(markdown_table(*table({name: p_values(name) for name in POLICIES})), end="\n\n")
    print(markdown_table(*table({"correlations": independence()})), end=f"\n\nEvenness over {SEEDS} seeds:\n\n")
    evenly = {name: evenness([p_values(name, seed) for seed in range(SEEDS)]) for name in POLICIES}
    print(markdown_table(*table(evenly)), end="\n\n")
    print(markdown_table(*table({"correlations": evenness([independence(seed) for seed in range(SEEDS)])})))
