"""The registry of backbones. A backbone is a frozen spec and a builder; a family is a table of specs and one builder.

Another package adds its own by the decorator, and by an entry point in the group `divco_tf.backbones`:

    @register_backbone("my_net", MyNetSpec())
    def my_net(spec, image, *, draw, num_classes):
        ...
        return logits
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from divco_tf.errors import InputError
from divco_tf.registry import Registry

Builder = Callable[..., Any]
"""(spec, image, *, draw, num_classes) -> logits, on Keras's symbolic tensors."""


def _none(spec: Any) -> Collection[str]:
    return ()


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A registered architecture.

    Attributes:
      name: as users write it.
      spec: frozen dataclass with all that defines the large network, its regularisation included.
      builder: called as `builder(spec, image, draw=draw, num_classes=K)` with symbolic tensors: `image`
        [B, H, W, C] float, `draw` uint64 [B, 2] for the stochastic layers of `models.layers`. Returns logits [B, K].
      unused_tensors: spec -> names of tensors in the authors' checkpoints that no forward pass uses: not built here.
    """

    name: str
    spec: Any
    builder: Builder
    unused_tensors: Callable[[Any], Collection[str]] = _none


BACKBONES: Registry[Backbone] = Registry(
    "backbone", entry_points="divco_tf.backbones", listed_by="divco-summarize --list"
)

_BUILDERS: dict[type, dict[str, Backbone]] = {}
"""Backbones of a builder by the type of their specs: a spec alone must say what builds it, when a stack is loaded."""


def register_backbone(name: str, spec: Any) -> Callable[[Builder], Builder]:
    """Decorates a builder: registers it with `spec` under `name`."""
    return register_backbones({name: spec})


def register_backbones(
    specs: Mapping[str, Any],
    *,
    pattern: str | None = None,
    parse: Callable[..., Any] | None = None,
    unused_tensors: Callable[[Any], Collection[str]] = _none,
) -> Callable[[Builder], Builder]:
    """Decorates a family's builder: registers it with every spec of a table {name: spec}.

    Args:
      specs: frozen dataclasses of one type, by backbone name.
      pattern: the form of further legal names with whole numbers in angle brackets, "wide_resnet<depth>_<width>".
      parse: called with the numbers of such a name; returns the spec, or refuses.
      unused_tensors: see `Backbone`.

    Raises:
      InputError: a spec that is no frozen dataclass or of a type that another builder has, or a name that is taken.
    """
    for name, spec in specs.items():
        if isinstance(spec, type) or not dataclasses.is_dataclass(spec) or not type(spec).__dataclass_params__.frozen:
            raise InputError(f"The spec of {name} is no frozen dataclass. Received: {spec!r}; decorate its class.")

    def decorate(builder: Builder) -> Builder:
        _check_signature(builder)
        for name, spec in specs.items():
            family = _BUILDERS.setdefault(type(spec), {})
            other = next((entry.builder for entry in family.values()), builder)
            if other is not builder:
                raise InputError(
                    f"Specs of one type have one builder. Received: {name} with a {type(spec).__name__}, "
                    f"which is {other.__name__}'s; subclass the spec."
                )
            entry = Backbone(name, spec, builder, unused_tensors)
            BACKBONES.add(name, entry)
            family[name] = entry
        if pattern is not None:
            regex = re.compile(re.sub(r"<\w+>", r"(\\d+)", pattern))

            def parsed(name: str) -> Backbone | None:
                match = regex.fullmatch(name)
                return Backbone(name, parse(*map(int, match.groups())), builder, unused_tensors) if match else None

            BACKBONES.add_parser(pattern, parsed)
        return builder

    return decorate


def _check_signature(builder: Builder) -> None:
    try:
        inspect.signature(builder).bind("spec", "image", draw="draw", num_classes=2)
    except TypeError as error:
        raise InputError(
            f"A builder is called as builder(spec, image, draw=draw, num_classes=K). "
            f"Received: {builder.__name__}{inspect.signature(builder)} ({error})."
        ) from error


def backbone_of(spec: Any) -> Backbone:
    """The backbone whose builder takes specs of this type, under a name of the family: the spec's own if it has one.

    Raises:
      InputError: no registered backbone does.
    """
    if type(spec) not in _BUILDERS:
        BACKBONES.names()  # a package that has not been loaded yet may have it
    if family := _BUILDERS.get(type(spec)):
        name = min(family, key=lambda name: (repr(family[name].spec) != repr(spec), name))
        return dataclasses.replace(family[name], spec=spec)
    raise InputError(f"No backbone takes this spec. Received: {spec!r}; pass the spec of a registered backbone.")
