"""What is read from the text of modules is what their import gives."""

import dataclasses
import inspect
import typing

import pytest

import divco_tf
from divco_tf.tools.benchmarks import latency
from divco_tf.tools.shared import settings, unimported


@pytest.mark.parametrize("part", settings.PARTS.values(), ids=settings.PARTS)
def test_fields_and_hints_are_those_of_the_dataclass(part):
    kind = getattr(divco_tf, part.kind)
    assert kind.__module__ == part.module
    assert list(part.fields) == [field.name for field in dataclasses.fields(kind)]
    hints = typing.get_type_hints(kind, include_extras=True)
    read = {name: unimported.hint_of(part.module, part.kind, name) for name in part.fields}
    known = {name: hint for name, hint in read.items() if hint is not typing.Any}
    assert known and known == {name: hints[name] for name in known}


def test_constants_are_followed_through_imports_and_what_is_more_than_a_literal_is_any():
    options = settings.PARTS["options"]
    assert "mirrored" in str(unimported.hint_of(options.module, options.kind, "strategy"))
    experiment = settings.PARTS["experiment"]
    for name in ("ensembling", "views"):  # a dictionary that is added to, and a class
        assert unimported.hint_of(experiment.module, experiment.kind, name) is typing.Any


def test_parameters_are_those_of_the_function():
    read = unimported.parameters_of("divco_tf.tools.benchmarks.latency", "run")
    assert read == tuple(inspect.signature(latency.run).parameters)
