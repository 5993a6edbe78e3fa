"""Warm start: a run that begins with another run's weights instead of random ones."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Annotated

from divco_tf import fields
from divco_tf.errors import InputError
from divco_tf.fields import OneOf, Whole
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.placement import canonical_name


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Whose weights a run begins with.

    Raises:
      InputError: a folder that is no path, or branches that are no whole numbers from 0.
    """

    model_dir: str | os.PathLike
    """The other run's; an imported one will do."""
    weights: Annotated[str, OneOf(("last", "best", "ema"))] = "last"
    """"last", "best" or "ema"."""
    branches: tuple[Whole, ...] | None = None
    """Which branches of the other run the S branches here begin as: S numbers, or one for all of them. None: each as
    the branch of its own number, where both runs have S."""

    def __post_init__(self) -> None:
        """Refuses what says nothing of a run."""
        fields.check(self)
        object.__setattr__(self, "model_dir", os.fspath(self.model_dir))
        if not self.model_dir:
            raise InputError("A warm start has no folder. Received: model_dir=''; pass the model_dir of a run.")
        if self.branches == ():
            raise InputError("A warm start is of no branch. Received: branches=(); pass a list such as (0,).")


def warm_start(stack: BranchStack, other: BranchStack, *, branches: Sequence[int] | None = None) -> str:
    """Writes another run's weights and batch-norm statistics into `stack`, or nothing where they do not fit.

    The last layer keeps its initial values where the numbers of classes differ, and so does the random state of Keras's
    own layers: copies of one branch shall not drop the same units. Only that and their views set such copies apart.

    Args:
      stack: of the run that begins.
      other: the other run's, as `experiment.load` gives it.
      branches: as `WarmStart`'s.

    Returns:
      One line that says what was done.

    Raises:
      InputError: the other run has no such branches, or another network; the first variable that differs is named.
    """
    chosen = _chosen_branches(branches, other, ours=stack.split_factor)
    kept, told = (), ""
    if other.num_classes != stack.num_classes:
        layer = canonical_name(stack.trainable_variables[-1].name).rpartition(".")[0]
        kept = tuple(name for name in stack.stacked_values() if name.rpartition(".")[0] == layer)
        told = f"; {layer} keeps its initial values ({other.num_classes} classes there, {stack.num_classes} here)"
    _check_fit(stack, other, kept)
    theirs = other.stacked_values()
    fitting = {name: theirs[name][list(chosen)] for name in theirs if name not in kept}
    stack.assign_stacked({name: value for name, value in fitting.items() if value.dtype.kind == "f"})
    numbers = ", ".join(map(str, chosen))
    return f"warm start from {other.weights_from}: branches {numbers} of {other.split_factor}{told}"


def _chosen_branches(branches: Sequence[int] | None, other: BranchStack, *, ours: int) -> Sequence[int]:
    """The branch there for each branch here."""
    theirs = other.split_factor
    if branches is None:
        if theirs != ours:
            raise InputError(
                f"The runs have different split factors. Received: {theirs} branches in {other.weights_from}, "
                f"{ours} here; choose {ours} of 0 to {theirs - 1} by branches=(...), or one for all."
            )
        return range(ours)
    chosen = tuple(branches) * (ours if len(branches) == 1 else 1)
    if len(chosen) != ours:
        raise InputError(
            f"The number of chosen branches is not the split factor. Received: branches={branches}, "
            f"split_factor={ours}; {ours} or a single one would work."
        )
    absent = [branch for branch in chosen if branch >= theirs]
    if absent:
        raise InputError(
            f"{other.weights_from} has no such branch. Received: {absent[0]}; there are 0 to {theirs - 1}."
        )
    return chosen


def _check_fit(stack: BranchStack, other: BranchStack, kept: Sequence[str]) -> None:
    """Refuses a network whose branches have other variables, but for those that are `kept`."""
    ours, theirs = (
        {name: value.shape[1:] for name, value in each.stacked_values().items() if name not in kept}
        for each in (stack, other)
    )
    for name in (*ours, *theirs):
        if ours.get(name) != theirs.get(name):
            there, here = (f"of shape {shapes[name]}" if name in shapes else "absent" for shapes in (theirs, ours))
            raise InputError(
                f"The other run's branches are other networks. Received: {name} is {there} in {other.weights_from}, "
                f"{here} here; a run of the same backbone and split factor would work, or another whose branches have "
                "the same widths and depth."
            )
