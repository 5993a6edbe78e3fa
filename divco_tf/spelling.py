"""Keras's words beside ours: both are taken, and one of them is given."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from divco_tf.errors import InputError

Function = TypeVar("Function", bound=Callable[..., Any])


def also_spelt(**names: str) -> Callable[[Function], Function]:
    """Decorates a function: `also_spelt(dtype="precision")` lets `dtype=` be given for its argument `precision`."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            for other, own in names.items():
                if other in kwargs and own in kwargs:
                    raise InputError(f"{other} is {own} in Keras's words. Received: both; pass one of them.")
                if other in kwargs:
                    kwargs[own] = kwargs.pop(other)
            return function(*args, **kwargs)

        return called

    return decorate
