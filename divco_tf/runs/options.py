"""Options: where, how fast and how watched a run is."""

import dataclasses
import os
from typing import Annotated

from divco_tf import fields, files
from divco_tf.data.sources.opening import ON_ERROR
from divco_tf.errors import InputError
from divco_tf.fields import AtLeast0, OneOf, Positive, Whole
from divco_tf.runs.clock import Clock
from divco_tf.runtime.compute import JIT
from divco_tf.runtime.strategy import STRATEGIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Where, how fast and how watched a run is. What bears on its result, more than by rounding, says so.

    Batch norm takes its statistics from a micro-batch of a replica, so the numbers of both bear on the result
    (`synchronised_norm` takes those of all replicas). They are recorded, and a run that goes on with others says so.

    Attributes:
      strategy: one of `STRATEGIES`; "auto": all GPUs of this computer. The number of replicas bears on batch norm.
      jit: XLA: "auto" (GPU and TPU), "on" or "off".
      micro_batches: parts of a replica's batch, one after the other, to save memory. Bears on batch norm.
      remat: saves memory for one more forward pass: activations are computed again for the gradient, block by block.
      branches_in_turn: one branch after the other, so that the activations of one live at a time.
      deterministic: only operations whose results are the same each time, which costs speed on a GPU.
      threads: of the input pipeline; None: as many as there are cores.
      checkpoint_every: steps between checkpoints; None: an epoch. The end has one always.
      keep_checkpoints: how many of the last stay.
      keep_best: how many of the best by the held-out images stay besides.
      evaluate_every: epochs between evaluations; 0: at the end only. Where images are held out, the best weights and
        early stopping follow from it.
      evaluate_every_steps: steps between evaluations, in place of epochs.
      evaluate_test: False opens no test image: the last weights are evaluated on the held-out ones.
      log_every: steps between TensorBoard's points; None: each step, or so many that a run has 1,000 points.
      histograms: shows TensorBoard the weights and statistics of every branch at each evaluation.
      profile: (first, last) step that TensorBoard's profiler looks at.
      progress_seconds: between lines of progress, where nobody watches (`train`'s `watch`).
      max_bad_steps: how many steps in a row whose loss or gradient is not finite are skipped before the run stops.
      eval_batch_size: images a batch of evaluation.
      on_error: "raise", or "skip": a training image that cannot be read is replaced by another of the epoch, so this
        bears on the result.
      memory_budget: bytes for decoded images, which are kept if all fit; None: a quarter of what is free.
      cache_dir: a folder that keeps decoded images, instead of the memory, and where records of TFRecord files begin.
      contact_sheet: shows TensorBoard the first images' views when a run begins.

    Raises:
      InputError: a number outside its range.
    """

    strategy: Annotated[str, OneOf(STRATEGIES)] = "auto"
    jit: Annotated[str, OneOf(JIT)] = "auto"
    micro_batches: Positive = 1
    remat: bool = False
    branches_in_turn: bool = False
    deterministic: bool = False
    threads: Positive | None = None
    checkpoint_every: Positive | None = None
    keep_checkpoints: Positive = 3
    keep_best: Positive = 1
    evaluate_every: Whole = 1
    evaluate_every_steps: Positive | None = None
    evaluate_test: bool = True
    log_every: Positive | None = None
    histograms: bool = False
    profile: tuple[Positive, Positive] | None = None
    progress_seconds: AtLeast0 = 30.0
    max_bad_steps: Whole = 0
    eval_batch_size: Positive = 500
    on_error: Annotated[str, OneOf(ON_ERROR)] = "raise"
    memory_budget: Whole | None = None
    cache_dir: str | os.PathLike | None = None
    contact_sheet: bool = True

    def __post_init__(self) -> None:
        fields.check(self)
        if self.cache_dir is not None:
            object.__setattr__(self, "cache_dir", str(files.local_path(self.cache_dir, "cache_dir")))
        if self.profile is not None and self.profile[0] > self.profile[1]:
            raise InputError(
                f"A profile is of a first and a last step. Received: profile={self.profile!r}; (10, 15) would work."
            )

    def evaluates(self, clock: Clock) -> bool:
        """Whether an evaluation is due where a run stands."""
        if clock.ended:
            return True
        if self.evaluate_every_steps is not None:
            return clock.step > 0 and clock.step % self.evaluate_every_steps == 0
        epochs = clock.whole_epochs
        return bool(epochs and self.evaluate_every and epochs % self.evaluate_every == 0)
