"""experiment.json: what a model_dir says of its run, read with suspicion and written whole."""

import dataclasses
import json
import pathlib
import platform
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from divco_tf import files
from divco_tf.data.sources.fingerprints import difference
from divco_tf.errors import InputError
from divco_tf.models.spec_json import spec_from_json, spec_to_json

RECORD = "experiment.json"
REMEDY = "put back a whole copy of it, or choose another model_dir"


def read_json(path: pathlib.Path, kind: type, what: str) -> Any:
    """What a file of a model_dir holds.

    Args:
      path: of the file.
      kind: dict or list.
      what: it should be, for the message.

    Raises:
      InputError: it cannot be read, is cut off, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or "it is cut off, or no JSON"
        raise InputError(f"{path.name} is not {what} ({why}). Received: {path}; {REMEDY}.") from error
    if not isinstance(content, kind):
        raise InputError(f"{path.name} is not {what}. Received: {path} with another content; {REMEDY}.")
    return content


def read_record(model_dir: pathlib.Path) -> dict[str, Any]:
    """The record in `model_dir`, which is there.

    Raises:
      InputError: it is damaged, or no record of a run.
    """
    path = model_dir / RECORD
    record = read_json(path, dict, "the record of a run")
    names = record.get("class_names")
    if not (
        isinstance(record.get("identity"), dict)
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
    ):
        raise InputError(f"{RECORD} is not the record of a run. Received: {path} with another content; {REMEDY}.")
    return record


def in_one_line(error: Exception) -> str:
    """What an error says, short."""
    return " ".join(str(error).split())[:200]


def write_record(path: pathlib.Path, identity: Mapping[str, Any], class_names: Sequence[str], **more: Any) -> None:
    """Writes what `read_record` reads."""
    files.write_json(path, {"identity": identity, "class_names": list(class_names), "versions": versions(), **more})


def versions() -> dict[str, str]:
    """Versions of what a run computes with."""
    packages = ("divco_tf", "tensorflow", "keras", "numpy", "numba")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def bearing(experiment: Any, options: Any, *, replicas: int) -> dict[str, Any]:
    """Of how a run computes, what bears on its result by more than rounding."""
    chosen = {name: getattr(options, name) for name in ("evaluate_every", "evaluate_every_steps")}
    return {
        "micro_batches": options.micro_batches,
        "replicas": replicas,
        "on_error": options.on_error,
        **(chosen if experiment.held_out else {}),  # when weights are chosen, and a run is stopped early
    }


def told_of_another_way(before: Mapping[str, Any], *, computed: Mapping[str, Any], order: int) -> Iterator[str]:
    """What to say where a run goes on otherwise than it was begun.

    Args:
      before: its record; of 0.1.0 it does not tell how the run was computed.
      computed: what `bearing` says now.
      order: of images, by the number of its way.
    """
    known = before.get("computed", {})
    told = [f"{name} {now!r} (there {known[name]!r})" for name, now in computed.items() if known.get(name, now) != now]
    if told:
        yield f"the run goes on otherwise than it was begun, so its result is that of neither way: {', '.join(told)}"
    if before.get("order", 1) != order:
        yield (
            "the run was begun by a release that drew numbers in another way: from here on the order of its images "
            "and their views are other ones than they would have been there"
        )


def check_branch(record: Mapping[str, Any], spec: Any, model_dir: pathlib.Path) -> None:
    """Refuses a run whose branches were other networks, under the same name.

    Raises:
      InputError: a default in a backbone's table, or a rule of division, has changed since; the fields are named.
    """
    recorded = branch_of(record)
    if spec is None or recorded is None:
        return
    before, now = spec_to_json(recorded)["spec"], spec_to_json(spec)["spec"]
    if before != now:
        raise InputError(
            f"The backbone's table has changed since the run was begun. Received: {told_difference('', before, now)}, "
            f"in {model_dir}; the release that began it would go on, or choose another model_dir."
        )


def branch_of(record: Mapping[str, Any]) -> Any:
    """The spec of each branch as it was when the run was begun; None: of a release that kept no record of it.

    Raises:
      InputError: the backbone has no such fields any more.
    """
    return spec_from_json(record["branch"]) if "branch" in record else None


def told_difference(key: str, before: Any, now: Any) -> str:
    """Where two values of JSON differ, for a line."""
    if key == "data":
        return difference(before, now)
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        prefix = key and f"{key}."
        return ", ".join(told_difference(f"{prefix}{name}", before.get(name), now.get(name)) for name in names)
    return f"{key} {now!r} (there {before!r})"


def from_json(kind: Any, content: Any) -> Any:
    """A value of type `kind` after `dataclasses.asdict` and JSON: lists are tuples again, dicts dataclasses.

    Raises:
      InputError: a field that is not known.
    """
    if isinstance(content, list):
        return tuple(from_json(kind, element) for element in content)
    found = next(_dataclasses_in(kind), None)
    if not isinstance(content, dict) or found is None:
        return content
    hints = typing.get_type_hints(found)
    if unknown := sorted(set(content) - {field.name for field in dataclasses.fields(found)}):
        raise InputError(
            f"{found.__name__} has no such field here, so another release wrote it. Received: {', '.join(unknown)}."
        )
    return found(**{key: from_json(hints[key], value) for key, value in content.items()})


def _dataclasses_in(hint: Any) -> Iterator[type]:
    """The dataclasses that a type hint names."""
    if dataclasses.is_dataclass(hint):
        yield hint
    for inner in typing.get_args(hint):
        yield from _dataclasses_in(inner)
