"""How far kernels are from the reference's arrays: `python -m tests.data.views.kernels.differences` prints a table."""

import numpy as np

from tests.data.views.kernels.test_augment import ARRAYS, OPERATION, difference


def table() -> list[str]:
    """A line of Markdown for each policy's operations, all their arrays together."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for key in ARRAYS:
        kind, name, *_ = key.split("/")
        policy = {"aa": "AutoAugment", "ra": "RandAugment"}[kind]
        found.setdefault((policy, OPERATION[name.lower()]), []).append(difference(key))
    lines = ["| | operation | arrays | largest difference | equal | within 1 |", "|---|---|---|---|---|---|"]
    for (policy, operation), off in found.items():
        levels = np.concatenate([one.ravel() for one in off])
        shares = f"{(levels == 0).mean():.2%} | {(levels <= 1).mean():.2%}"
        lines.append(f"| {policy} | {operation} | {len(off)} | {levels.max()} | {shares} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
