"""A system under measurement in a process of its own: threads, traces and memory are a process's."""

import contextlib
import ctypes
import dataclasses
import multiprocessing
import os
import pathlib
import resource
import time
from collections.abc import Callable
from typing import Any

from divco_tf.errors import RunError
from divco_tf.tools.shared import app

Step = Callable[[], Any]
_PEAK, _RESULT = "peak", "result"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class OutOfTime(RunError):
    """A worker has not answered within its limit."""


class Worker:
    """Makes one training step in a new process, which waits while others are timed.

    Args:
      make: returns the step; pickled, so a function of a module or a partial of one.
      cpu_threads: among how many branches the process shares its cores (`runtime.share_cores`); None leaves
        TensorFlow's threads alone.
      threads: instead, of an operation (intra-op) and operations at once (inter-op).
      report: called with a line when the first step has been taken.
      logical_cpus: into how many devices the process divides its CPU.
      limit: seconds that the worker may take for anything; None: any.
      measures_memory: `step_bytes` will be called; until `seconds` is, freed memory is given back.

    Attributes:
      times: "build" and "first" in seconds, "peak_mb" after the first step, and "rounds", seconds a step.

    Raises:
      RunError: building or a step failed; OutOfTime where it took longer than the limit. The process is ended then.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Step],
        *,
        cpu_threads: int | None,
        report: Callable[[str], None],
        threads: tuple[int, int] | None = None,
        logical_cpus: int = 1,
        limit: float | None = None,
        measures_memory: bool = False,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._name, self._limit = name, limit
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, cpu_threads, threads, logical_cpus, measures_memory), daemon=True
        )
        self._process.start()
        theirs.close()  # or a worker that dies would be waited for
        self._receive(limit=None)  # TensorFlow is imported, which the first step's limit does not count
        self.times: dict[str, Any] = {**self._ask(make), "rounds": []}
        report(f"{name}: built in {self.times['build']:.2f} s, first step {self.times['first']:.2f} s")

    def seconds(self, steps: int) -> float:
        """How long some steps take."""
        return self._ask(steps)

    def result(self) -> Any:
        """What a step returns."""
        return self._ask(_RESULT)

    def _ask(self, request: Any) -> Any:
        with contextlib.suppress(BrokenPipeError):  # `_receive` tells of a process that is gone
            self._pipe.send(request)
        return self._receive(limit=self._limit)

    def _receive(self, *, limit: float | None) -> Any:
        try:
            if not self._pipe.poll(limit):
                raise OutOfTime(f"{self._name} is stopped. Received: no step within {limit:g} s.")
            answer = self._pipe.recv()
            if isinstance(answer, _Failure):
                raise RunError(f"{self._name} failed. Received: {answer.told}")
            return answer
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            raise RunError(f"{self._name} ended. Received: exit status {code} (-9: out of memory).") from None
        except BaseException:
            self.__exit__()
            raise

    def step_bytes(self) -> int:
        """The most memory that one step takes beside what the process, or its GPU, held before it."""
        return self._ask(_PEAK)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()  # XLA compiles on when it is asked to end
        self._process.join()


@dataclasses.dataclass(frozen=True)
class _Failure:
    """What a worker sends instead of an answer."""

    told: str


def _serve(
    pipe: Any, cpu_threads: int | None, threads: tuple[int, int] | None, logical_cpus: int, measures_memory: bool
) -> None:
    if measures_memory:
        # oneDNN's allocator, of which TensorFlow reads this, keeps all that it ever had.
        os.environ["TF_ONEDNN_USE_SYSTEM_ALLOCATOR"] = "1"
        keep_freed_memory(False)
    try:
        _answer(pipe, cpu_threads, threads, logical_cpus, measures_memory)
    except EOFError:  # whoever asked is gone
        pass
    except Exception as error:
        pipe.send(_Failure(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def _answer(
    pipe: Any, cpu_threads: int | None, threads: tuple[int, int] | None, logical_cpus: int, measures_memory: bool
) -> None:
    app.load_tensorflow()
    import tensorflow as tf

    from divco_tf.runtime.compute import share_cores

    if cpu_threads is not None:
        share_cores(cpu_threads)
    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads[0])
        tf.config.threading.set_inter_op_parallelism_threads(threads[1])
    for gpu in tf.config.list_physical_devices("GPU"):  # which several workers share
        tf.config.experimental.set_memory_growth(gpu, True)
    if logical_cpus > 1:
        cpus = [tf.config.LogicalDeviceConfiguration()] * logical_cpus
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    pipe.send(os.getpid())
    make = pipe.recv()  # its module, with Keras, is imported here
    tf.zeros([]).numpy()  # TensorFlow itself has started then
    start = time.perf_counter()
    step = make()
    built = time.perf_counter()
    step()
    first = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send({"build": built - start, "first": first - built, "peak_mb": peak})
    while True:
        steps = pipe.recv()
        if steps == _PEAK:
            pipe.send(peak_growth(step))
            continue
        if steps == _RESULT:
            pipe.send(step())
            continue
        if measures_memory:
            keep_freed_memory(True)
            step()
            measures_memory = False
        start = time.perf_counter()
        for _ in range(steps):
            step()
        pipe.send(time.perf_counter() - start)


def keep_freed_memory(keep: bool) -> None:
    """Whether the C library keeps blocks of more than 64 kB that were freed, as it does unless told otherwise (glibc).

    It has an arena a thread and does not move memory between them: a process is then much larger than what lives in it.
    """
    size = 32 << 20 if keep else 1 << 16  # its own choice grows up to the former
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, size)
    libc.mallopt(_M_TRIM_THRESHOLD, 2 * size)
    libc.malloc_trim(0)


def peak_growth(step: Step) -> int:
    """How many bytes the memory of the first GPU, or of this process, is at most above where it was before `step`.

    On CPU `keep_freed_memory(False)` must have been called when the process began: what is freed is gone then.
    """
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        memory = tf.config.experimental
        before = memory.get_memory_info("GPU:0")["current"]
        memory.reset_memory_stats("GPU:0")
        step()
        return memory.get_memory_info("GPU:0")["peak"] - before
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size now (proc(5))
    before = _status_bytes("VmRSS")
    step()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
