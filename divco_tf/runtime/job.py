"""A process's place among the workers of a job."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from divco_tf.errors import InputError, RunError


class Job:
    """This process's place among the workers of a strategy; alone, it is the first of one.

    Attributes:
      count: of workers, each a process.
      index: of this one; the first is the chief, which writes what is written once.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.index, self.count = 0, 1
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            spec = resolver.cluster_spec().as_dict()
            tasks = [(kind, index) for kind in ("chief", "worker") for index in range(len(spec.get(kind, ())))]
            self.index, self.count = tasks.index((resolver.task_type, resolver.task_id)), len(tasks)

    @property
    def chief(self) -> bool:
        """Whether this is the worker that writes."""
        return self.index == 0

    @property
    def part(self) -> tuple[int, int]:
        """(i, n): this worker makes the i-th of n equal slices of every batch."""
        return self.index, self.count

    def check_same(self, what: str, value: int, *, at: Any) -> None:
        """Refuses to go on where the workers see different values.

        Raises:
          InputError: as said.
        """
        values = self.gathered(value)
        if len(set(values)) > 1:
            raise InputError(
                f"The workers see different folders: the {what} is {', '.join(map(str, values))}. Received: {at}; a "
                "folder that all of them share would work."
            )

    def gathered(self, value: int) -> list[int]:
        """The values that the workers' replicas call this with, in order; a worker alone gets its own."""
        if self.count == 1:
            return [value]

        def gathered(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            mine = value * tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=tf.int64)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        values = tf.function(lambda: self._strategy.run(gathered, args=(tf.constant(value, tf.int64),)))()
        return self._strategy.experimental_local_results(values)[0].numpy().tolist()

    @contextlib.contextmanager
    def watched(self, last_checkpoint_told: Callable[[], str]) -> Iterator[None]:
        """Tells in one line that a worker is gone.

        Raises:
          RunError: as said.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.count == 1:
                raise
            raise RunError(
                f"A worker of the job is gone, or cannot be reached ({type(error).__name__}). Received: worker "
                f"{self.index} of {self.count} goes on alone no further; {last_checkpoint_told()}; start all workers "
                "again with the same command."
            ) from error
