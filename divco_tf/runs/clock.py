"""Where a run stands, in steps and epochs."""

import dataclasses


@dataclasses.dataclass
class Clock:
    """Counts the steps of a run.

    Attributes:
      steps_per_epoch: of the run.
      total_steps: of the run.
      step: how many are done.
    """

    steps_per_epoch: int
    total_steps: int
    step: int = 0

    @property
    def ended(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.total_steps

    @property
    def epoch(self) -> float:
        """How many epochs are done, with the share of the one that has begun."""
        return self.step / self.steps_per_epoch

    @property
    def whole_epochs(self) -> int | None:
        """The epochs that are done where one has just ended, else None."""
        epochs, into_epoch = divmod(self.step, self.steps_per_epoch)
        return epochs if epochs and not into_epoch else None
