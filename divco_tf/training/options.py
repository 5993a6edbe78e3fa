"""Options: where, how fast and how watched a run is."""

import dataclasses
from typing import Any

from divco_tf.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Where, how fast and how watched a run is: nothing here bears on its result.

    Attributes:
      strategy: one of `runtime.STRATEGIES`; "auto": all GPUs of this computer.
      jit: XLA: "auto" (GPU and TPU), "on" or "off".
      micro_batches: parts of a replica's batch, one after the other, to save memory.
      remat: saves memory for one more forward pass: activations are computed again for the gradient, block by block.
      branches_in_turn: one branch after the other, so that the activations of one live at a time.
      deterministic: only operations whose results are the same each time, which costs speed on a GPU.
      threads: of the input pipeline; None: as many as there are cores.
      checkpoint_every: steps between checkpoints; None: an epoch. The end has one always.
      keep_checkpoints: how many of the last stay.
      keep_best: how many of the best by the held-out images stay besides.
      evaluate_every: epochs between evaluations; 0: at the end only.
      evaluate_every_steps: steps between evaluations, in place of epochs.
      log_every: steps between TensorBoard's scalars.
      histograms: shows TensorBoard the weights and statistics of every branch at each evaluation.
      profile: (first, last) step that TensorBoard's profiler looks at.
      progress_seconds: between lines of progress.
      max_bad_steps: how many steps in a row whose loss or gradient is not finite are skipped before the run stops.
      eval_batch_size: images a batch of evaluation.
      on_error: "raise", or "skip": a training image that cannot be read is replaced by another of the epoch, so this
        does bear on the result.
      memory_budget: bytes for decoded images, which are kept if all fit; None: a quarter of what is free.
      cache_dir: a folder that keeps decoded images, instead of the memory, and where records of TFRecord files begin.
      contact_sheet: shows TensorBoard the first images' views when a run begins.

    Raises:
      InputError: a number outside its range.
    """

    strategy: str = "auto"
    jit: str = "auto"
    micro_batches: int = 1
    remat: bool = False
    branches_in_turn: bool = False
    deterministic: bool = False
    threads: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 3
    keep_best: int = 1
    evaluate_every: int = 1
    evaluate_every_steps: int | None = None
    log_every: int = 20
    histograms: bool = False
    profile: tuple[int, int] | None = None
    progress_seconds: float = 5.0
    max_bad_steps: int = 0
    eval_batch_size: int = 500
    on_error: str = "raise"
    memory_budget: int | None = None
    cache_dir: str | None = None
    contact_sheet: bool = True

    def __post_init__(self) -> None:
        for name in ("micro_batches", "keep_checkpoints", "keep_best", "log_every", "eval_batch_size"):
            _check_whole(name, getattr(self, name), least=1)
        for name in ("checkpoint_every", "evaluate_every_steps", "threads"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), least=1)
        for name in ("evaluate_every", "max_bad_steps"):
            _check_whole(name, getattr(self, name), least=0)
        if self.profile is not None:
            object.__setattr__(self, "profile", tuple(self.profile))  # gin's lists
            if len(self.profile) != 2 or not 1 <= self.profile[0] <= self.profile[1]:
                raise InputError(
                    f"A profile is of a first and a last step. Received: profile={self.profile!r}; (10, 15) would work."
                )

    def evaluates(self, step: int, *, total_steps: int, steps_per_epoch: int) -> bool:
        """Whether an evaluation is due after `step` steps."""
        if step == total_steps:
            return True
        if self.evaluate_every_steps is not None:
            return step > 0 and step % self.evaluate_every_steps == 0
        epoch, into_epoch = divmod(step, steps_per_epoch)
        return bool(step and self.evaluate_every and not into_epoch and epoch % self.evaluate_every == 0)


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is no whole number from {least}. Received: {value!r}; pass {least} or more.")
