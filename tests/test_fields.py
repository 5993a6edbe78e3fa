import dataclasses
import os
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pytest

from divco_tf import fields
from divco_tf.errors import InputError
from tests.tiny import one_line


@dataclasses.dataclass(frozen=True)
class Inner:
    share: fields.Share = 0.5

    def __post_init__(self) -> None:
        fields.check(self)


@dataclasses.dataclass(frozen=True)
class Settings:
    whole: int = 0
    number: float = 0.0
    truth: bool = False
    text: str = ""
    word: Annotated[str, fields.OneOf(("on", "off"))] = "on"
    few: Annotated[int, fields.Within(1, most=3)] | None = None
    rate: Annotated[float, fields.Within(above=0, below=1)] = 0.5
    inner: Inner | str | tuple[Inner | str, ...] = Inner()
    pair: tuple[float, float] = (0.0, 1.0)
    path: str | os.PathLike | None = None
    named: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        fields.check(self)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("whole", 1.0, "another type. Received: 1.0; pass a whole number."),
        ("whole", True, "another type. Received: True"),
        ("whole", "1", "another type. Received: '1'"),
        ("number", None, "another type. Received: None; pass a number."),
        ("number", float("nan"), "out of range. Received: nan"),
        ("number", float("inf"), "out of range. Received: inf"),
        ("number", 10**400, "out of range. Received: 1000"),
        ("truth", "False", "another type. Received: 'False'; pass True or False."),
        ("truth", 0, "another type. Received: 0"),
        ("text", b"on", "another type. Received: b'on'; pass a text."),
        ("word", "onn", "out of range. Received: 'onn'; pass one of on, off."),
        ("few", 4, "out of range. Received: 4; pass a whole number, 1 or more and at most 3."),
        ("few", "4", "another type. Received: '4'; pass a whole number, 1 or more and at most 3, or None."),
        ("rate", 1, "out of range. Received: 1; pass a number, above 0 and below 1."),
        ("inner", 3, "another type. Received: 3; pass an Inner, or a text, or a list, each an Inner, or a text."),
        ("inner", ["a", 3], "another type. Received: ['a', 3]"),
        ("pair", (1.0,), "another type. Received: (1.0,); pass 2 values, each a number."),
        ("pair", np.zeros([2, 2]), "another type. Received: array([[0., 0.], [0., 0.]])"),
        ("path", 3, "another type. Received: 3; pass a text, or a path, or None."),
        ("named", [1], "another type. Received: [1]; pass a dict of numbers, strings and lists."),
        ("named", {1: 2}, "another type. Received: {1: 2}"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_named_in_one_line(name, value, says):
    with pytest.raises(InputError) as caught:
        Settings(**{name: value})
    assert one_line(caught.value, says=f"Settings.{name} ") and says in str(caught.value)


def test_what_fits_stays_and_lists_and_numpys_numbers_become_pythons():
    assert Settings(number=3).number == 3 and Settings(few=None).few is None and Settings(inner="a").inner == "a"
    taken = Settings(
        whole=np.int64(3), truth=np.bool_(True), text=np.str_("a"), pair=[np.float32(0.5), 1], inner=["a", Inner()]
    )
    assert taken == Settings(whole=3, truth=True, text="a", pair=(0.5, 1), inner=("a", Inner()))
    kinds = [type(value) for value in (taken.whole, taken.truth, taken.text, taken.pair, taken.pair[0])]
    assert kinds == [int, bool, str, tuple, float]


def test_a_dict_is_a_copy():
    given = {"a": np.float64(0.5), "b": [np.int32(1), (2, {"c": np.int8(3)})]}
    taken = Settings(named=given).named
    given["b"].append(4)
    assert taken == {"a": 0.5, "b": [1, (2, {"c": 3})]} and type(taken["a"]) is float
