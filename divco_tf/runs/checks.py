"""What keeps an experiment from being trained: `train` refuses it before data are read, and `plan` tells it."""

import concurrent.futures
import pathlib
from collections.abc import Mapping

import numpy as np

from divco_tf import fields, files
from divco_tf.data.sources import Source
from divco_tf.data.sources.encoded import EncodedSource
from divco_tf.errors import InputError
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import check_model_dir, open_model_dir
from divco_tf.runs.options import Options
from divco_tf.runtime.strategy import branch_devices, check_workers
from divco_tf.training.cotraining import check_synchronised_norm
from divco_tf.training.optim.placed import check_for_blocks

_LOOKED_AT = 256  # images of a split; as many are decoded in a second


def check_arguments(experiment: Experiment, options: Options, *, extend: bool) -> None:
    """Refuses arguments of another type: a text "False" would be true.

    Raises:
      InputError: as said.
    """
    fields.checked(experiment, Experiment, "experiment")
    fields.checked(options, Options, "options")
    fields.checked(extend, bool, "extend")


def check_settings(experiment: Experiment, options: Options, *, replicas: int) -> None:
    """Refuses what cannot be trained so, wherever it lies.

    Raises:
      InputError: settings that do not go together.
    """
    _ = experiment.view_policies  # an unknown one is refused
    check_workers(options.strategy)
    if not (options.evaluate_test or experiment.held_out):
        raise InputError(
            "Without test images a run is evaluated on held-out ones. Received: evaluate_test=False, held_out=0; "
            "held_out=0.1 would work."
        )
    experiment.check_run(replicas=replicas, micro_batches=options.micro_batches)
    check_synchronised_norm(
        experiment.synchronised_norm,
        jit=options.jit,
        remat=options.remat,
        branches_in_turn=options.branches_in_turn,
    )
    if branch_devices(options.strategy, experiment.split_factor):
        check_for_blocks(experiment.optimizer.build(0.1, split_factor=experiment.split_factor))


def check_places(experiment: Experiment, model_dir: pathlib.Path, *, extend: bool, writes: bool) -> bool:
    """Refuses a model_dir of another experiment, or another run to begin with that is not there.

    Args:
      experiment: what is trained.
      model_dir: of the run.
      extend: it may be trained for more epochs or steps than before.
      writes: whether this process is to write into model_dir, so that no other may.

    Returns:
      Whether a run lies there already.

    Raises:
      InputError: as said.
    """
    found = check_model_dir(model_dir, experiment.identity(None), extend=extend)
    if writes:
        check_unused(model_dir)
    check_warm_start(experiment, model_dir)
    return found


def check_unused(model_dir: pathlib.Path) -> None:
    """Refuses a model_dir that another process trains in.

    Raises:
      InputError: as said.
    """
    if holder := files.FolderLock(model_dir).holder():
        raise InputError(f"model_dir is in use. Received: {model_dir}, {holder}; wait for it, or choose another.")


def check_warm_start(experiment: Experiment, model_dir: pathlib.Path) -> str | None:
    """Where a run begins, for a line; None: at random, or its first step is past.

    Raises:
      InputError: there are no such weights.
    """
    start = experiment.warm_start
    if start is None or any((model_dir / "checkpoints").glob("[0-9]*")):
        return None
    other = files.local_path(start.model_dir, "WarmStart.model_dir")
    return f"{other}, {open_model_dir(other).described(start.weights)}"


def check_evaluated(sources: Mapping[str, Source]) -> None:
    """Refuses images that evaluation, which counts each, could not read: a spread of them is decoded.

    Args:
      sources: of a run, by split.

    Raises:
      BadImage: one cannot be read.
    """
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for split, source in sources.items():
            if split == "train" or not isinstance(source, EncodedSource) or not len(source):
                continue
            indices = np.unique(np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(int))
            for _ in pool.map(source.read_stored, indices.tolist()):
                pass
