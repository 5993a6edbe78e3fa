"""A spec becomes JSON and the same spec again, whatever it is made of; nothing else is made of what a file says."""

import dataclasses
import enum
import json
from typing import Any

import keras
import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models import layers
from divco_tf.models.backbones.registry import BACKBONES, backbone_of, register_backbone
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.divide import divide
from divco_tf.models.spec_json import check_overrides, spec_from_json, spec_to_json
from tests.tiny import TinySpec, one_line, shipped_backbones


class Kind(enum.Enum):
    PLAIN = "plain"
    WIDE = "wide"


@dataclasses.dataclass(frozen=True)
class Block:
    channels: int
    kind: Kind = Kind.PLAIN
    strides: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True)
class Stage:
    blocks: tuple[Block, ...] = ()


@dataclasses.dataclass(frozen=True)
class NestedSpec:
    table: tuple[tuple[Any, ...], ...] = ((1, 2), (3, (4, "five", None)))
    stage: Stage = Stage((Block(4),))
    options: Any = None


@register_backbone("nested", NestedSpec())
def nested(spec: NestedSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    hash(spec.table)
    for index, block in enumerate(spec.stage.blocks):
        image = layers.conv(image, block.channels, 3, name=f"conv{index}")
    return layers.classifier(image, num_classes)


SPECS = [
    NestedSpec(),
    NestedSpec(table=(), stage=Stage((Block(2, Kind.WIDE, (2, 1)), Block(3)))),
    NestedSpec(options=[1, (2, [3])]),
    NestedSpec(options={"a": (1, 2), 3: {"b": Block(5)}}),
    NestedSpec(options=(Kind.WIDE, {"list": [1]}, {"dict": []}, {"enum": "Kind", "member": "WIDE"})),
    NestedSpec(options=0.1),
    TinySpec(width=3, norm=False),
    divide(BACKBONES.get("resnext101_64x4d").spec, 2),
]


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_spec_survives_json(spec):
    again = spec_from_json(json.loads(json.dumps(spec_to_json(spec))))
    assert again == spec
    assert repr(again) == repr(spec)  # a list equals no tuple, but 1 equals True and 1.0


@pytest.mark.parametrize("entry", shipped_backbones(), ids=lambda entry: entry.name)
def test_every_registered_spec_survives_json_under_its_name(entry):
    data = json.loads(json.dumps(spec_to_json(entry.spec)))
    assert spec_from_json(data) == entry.spec
    assert data["backbone"] == entry.name


def test_numpys_numbers_become_pythons():
    again = spec_from_json(json.loads(json.dumps(spec_to_json(TinySpec(width=np.int64(4), dropout=np.float32(0.5))))))
    assert repr(again) == "TinySpec(width=4, norm=True, dropout=0.5)"


def test_what_0_1_0_wrote_is_read():
    """It wrote `dataclasses.asdict`, and read lists as tuples at the top only."""
    spec = NestedSpec()
    data = json.loads(json.dumps({"backbone": "nested", "spec": {**dataclasses.asdict(spec), "stage": {"blocks": []}}}))
    assert spec_from_json(data) == dataclasses.replace(spec, stage=Stage())


def test_a_stack_of_a_nested_spec_is_saved_and_loaded(tmp_path):
    stack = build("nested", copies=2, num_classes=3, input_shape=(4, 4, 3))
    stack.save(tmp_path / "stack.keras")
    assert keras.models.load_model(tmp_path / "stack.keras").spec == stack.spec
    assert BranchStack.from_config(stack.get_config()).spec == stack.spec


@pytest.mark.parametrize(
    "value", [np.zeros(2), lambda: 0, {1, 2}, (object(),), {"a": b"bytes"}], ids=lambda value: type(value).__name__
)
def test_what_has_no_form_in_json_is_refused_in_one_line(value):
    with pytest.raises(InputError) as error:
        spec_to_json(NestedSpec(options=value))
    assert one_line(error.value, says="NestedSpec.options has no form there")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"widht": 3}, "Received: widht; it has width, norm, dropout"),
        ({"width": {"dataclass": "PosixPath", "fields": {}}}, "a class that its backbone does not name"),
        ({"width": {"enum": "Popen", "member": "x"}}, "a class that its backbone does not name"),
    ],
)
def test_other_fields_and_classes_are_refused_in_one_line(fields, says):
    with pytest.raises(InputError) as error:
        spec_from_json({"backbone": "tiny", "spec": fields})
    assert one_line(error.value, says=says)


@pytest.mark.parametrize("name", ["tiny", *sorted({backbone_of(entry.spec).name for entry in shipped_backbones()})])
def test_overrides_are_of_the_types_that_the_spec_says(name):
    spec = BACKBONES.get(name).spec
    values = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    check_overrides(name, values)
    for field in values:
        with pytest.raises(InputError, match=f"overrides of {type(spec).__name__}.{field} has another type"):
            check_overrides(name, {field: object()})
