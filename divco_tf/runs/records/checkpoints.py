"""Checkpoints of a run: which there are, how one is written and read.

A checkpoint is a folder `<step>`, complete or absent: TensorFlow's checkpoint files, `info.json`, and `SHA256SUMS` of
both, by which damage is noticed before a wrong weight is read. In the files a variable has its canonical name, so that
they mean the same when layers are made in another order: "stack/stem.kernel", "optimizer/stem.kernel/momentum",
"run/step". 0.1.0 named variables by their positions ("stack/17"), which is read too.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import tensorflow as tf

from divco_tf import files
from divco_tf.errors import InputError, RunError
from divco_tf.models import placement
from divco_tf.runs.records.variables import State, by_name, by_position, snapshot, whole_shape

_POSITION = re.compile(r"\w+/\d+")
_SUMS = "SHA256SUMS"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: pathlib.Path
    step: int

    def check(self) -> None:
        """Compares every file with its checksum.

        Raises:
          InputError: a file is damaged, missing or not accounted for.
        """
        try:
            sums = dict(reversed(line.split("  ", 1)) for line in (self.path / _SUMS).read_text().splitlines())
            there = {path.name for path in self.path.iterdir()} - {_SUMS}
            damaged = sorted(there ^ set(sums)) or [
                name for name, checksum in sums.items() if _checksum(self.path / name) != checksum
            ]
        except (OSError, ValueError) as error:
            raise self._unreadable(f"{_SUMS}: {error}") from error
        if damaged:
            raise self._unreadable(f"{damaged[0]} is damaged or missing")

    def set_aside_if_damaged(self) -> None:
        """Renames a folder whose files are not whole."""
        try:
            self.check()
        except InputError:
            self.path.rename(files.unused_name(self.path.with_name(f"damaged-{self.path.name}")))

    def restore(self, state: State, *, partial: bool = False) -> None:
        """Reads the groups of `state`; `partial` allows the checkpoint to hold further groups.

        Raises:
          InputError: the files are damaged, or hold other variables; no variable has changed then.
        """
        self.check()
        self._assign(state, partial)

    def _assign(self, state: State, partial: bool) -> None:
        with files.without_patterns(self.path) as folder:
            stored = tf.train.load_checkpoint(str(folder / "state"))
            shapes = stored.get_variable_to_shape_map()
            wanted = by_position(state) if all(map(_POSITION.fullmatch, shapes)) else by_name(state)
            values = self._values(stored, shapes, wanted, state, partial)
        for name, blocks in wanted.items():
            placement.assign_merged(blocks, values[name])

    def _values(self, stored: Any, shapes: Mapping, wanted: Mapping, state: State, partial: bool) -> dict[str, Any]:
        """What is stored of the variables that are wanted, if it is all that is stored and of their shapes."""
        expected = {name: whole_shape(blocks) for name, blocks in wanted.items()}
        found = {name: shape for name, shape in shapes.items() if not partial or name.split("/")[0] in state}
        if found != expected:
            different = sorted(name for name in {**found, **expected} if found.get(name) != expected.get(name))
            raise self._unreadable(
                f"it holds other variables: {different[0]} is {found.get(different[0])}, "
                f"{expected.get(different[0])} was expected"
            )
        return {name: stored.get_tensor(name) for name in wanted}

    def _unreadable(self, why: str) -> InputError:
        return InputError(
            f"The checkpoint cannot be read ({' '.join(why.split())[:200]}). Received: {self.path}; "
            "remove that folder to use the one before."
        )


class Checkpoints:
    """The checkpoints in one folder.

    Args:
      directory: made when the first is saved.
      keep: how many of the last stay.

    Raises:
      InputError: none would stay.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 3) -> None:
        if keep < 1:
            raise InputError(f"At least one checkpoint is kept. Received: keep={keep}; pass 1 or more.")
        self.directory = pathlib.Path(directory)
        self._keep = keep

    def all(self) -> list[Checkpoint]:
        """Those on disk, oldest first."""
        found = [path for path in self.directory.glob("[0-9]*") if path.name.isdecimal()]
        return sorted((Checkpoint(path, int(path.name)) for path in found), key=lambda found: found.step)

    def last(self) -> Checkpoint | None:
        """The newest, or None."""
        return next(reversed(self.all()), None)

    def last_whole(self, *, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest whose files are whole, or None; damaged ones are reported.

        Raises:
          InputError: there are checkpoints, and all of them are damaged.
        """
        found = self.all()
        for checkpoint in reversed(found):
            try:
                checkpoint.check()
            except InputError as error:
                report(f"{error} It is not used.")
            else:
                return checkpoint
        if found:
            raise InputError(
                f"All checkpoints are damaged. Received: {self.directory} with {len(found)}; remove it to begin anew."
            )
        return None

    def restore_last(self, state: State, *, report: Callable[[str], None], set_aside: bool = True) -> Checkpoint | None:
        """Reads the newest whole checkpoint and returns it; newer ones, if damaged, are reported and set aside.

        Args:
          state: what is read into.
          report: called with a line for each damaged one.
          set_aside: renames them, so that their steps can be saved anew; one worker of a job does it.

        Raises:
          InputError: there are checkpoints, and all of them are damaged.
        """
        found = self.last_whole(report=report)
        if found is not None:
            found._assign(state, partial=False)
            for newer in (other for other in self.all() if set_aside and other.step > found.step):
                newer.set_aside_if_damaged()
        return found

    def save(
        self, step: int, state: State, *, info: Mapping[str, Any] | None = None, protected: Collection[int] = ()
    ) -> Checkpoint:
        """Writes a checkpoint, complete or absent, and removes those that are no longer kept.

        Args:
          step: of the run.
          state: what it holds.
          info: more for info.json.
          protected: steps whose checkpoints stay, besides the last ones.
        """
        return self.write(step, snapshot(state), info=info, protected=protected)

    def write(
        self,
        step: int,
        snapshot: Mapping[str, tf.Tensor],
        *,
        info: Mapping[str, Any] | None = None,
        protected: Collection[int] = (),
    ) -> Checkpoint:
        """As `save`, of values that `snapshot` has taken."""
        path = self.directory / f"{step:09d}"
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            with files.new_directory(path) as beside:
                _write_tensors(beside / "state", snapshot)
                files.write_json(beside / "info.json", {"step": step, **(info or {})})
                sums = [f"{_checksum(file)}  {file.name}\n" for file in sorted(beside.iterdir())]
                (beside / _SUMS).write_text("".join(sums))
        for old in self.all()[: -self._keep]:
            if old.step not in protected:
                files.remove_directory(old.path)
        return Checkpoint(path, step)

    def remove_unfinished(self) -> None:
        """Removes what a killed run left behind."""
        files.remove_unfinished(self.directory)


class CheckpointWriter:
    """Writes checkpoints in a thread while training goes on.

    The step waits for a copy of the state only: on a CPU not even for that, as TensorFlow's variables copy on write. A
    checkpoint that cannot be written, for want of space, say, is reported and leaves the older ones whole.

    Args:
      checkpoints: where they are written.
      report: called with a line for each that could not be written.
      writes: False takes part only: values that lie on several workers are read by all of them together.
    """

    def __init__(self, checkpoints: Checkpoints, *, report: Callable[[str], None], writes: bool = True) -> None:
        self._checkpoints, self._report, self._writes = checkpoints, report, writes
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._step = 0

    def save(self, step: int, state: State, *, protected: Collection[int] = ()) -> None:
        """Begins to write a checkpoint of the present values, after the one before has been written."""
        self.wait()
        self.write(step, snapshot(state), protected=protected)

    def write(self, step: int, values: Mapping[str, tf.Tensor], *, protected: Collection[int] = ()) -> None:
        """As `save`, of values that `snapshot` has taken."""
        self.wait()
        if not self._writes:
            return
        self._step, self._error = step, None
        self._thread = threading.Thread(target=self._write, args=(step, values, protected), name="checkpoint")
        self._thread.start()

    def wait(self) -> bool:
        """Waits for the checkpoint that is being written; False: it could not be, which has been reported."""
        if self._thread is not None:
            self._thread.join()
        return self.check()

    def check(self) -> bool:
        """Reports what went wrong, if anything did; to be called between steps. False: the last save failed."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            if isinstance(self._error, OSError | tf.errors.OpError):
                why = files.why_unwritten(self._error)
                last = self._checkpoints.last()
                self._report(
                    f"the checkpoint of step {self._step} could not be written ({why}); training goes on, "
                    + (f"the last one is {last.path}" if last else "there is none yet")
                )
            elif self._error is not None:
                raise self._error
        return self._error is None

    def _write(self, step: int, values: Mapping[str, tf.Tensor], protected: Collection[int]) -> None:
        try:
            self._checkpoints.write(step, values, protected=protected)
        except BaseException as error:
            self._error = error


@contextlib.contextmanager
def whole_or_told(what: str, folder: pathlib.Path) -> Iterator[None]:
    """For what `files` leaves nothing of in `folder` when writing it fails, for want of space, say.

    Raises:
      RunError: the block failed so, in one line.
    """
    try:
        yield
    except FileExistsError:
        raise
    except (OSError, tf.errors.OpError) as error:
        why = files.why_unwritten(error)
        raise RunError(f"The {what} could not be written ({why}). Nothing of it is left in {folder}.") from error


def _write_tensors(prefix: pathlib.Path, tensors: Mapping[str, tf.Tensor]) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def _checksum(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
