"""What a builder returns must be a network that a stack runs whole: what a stack would drop is refused by name."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models import placement
from divco_tf.models.call_graph import call_graph


def checked_logits(name: str, logits: Any, num_classes: int) -> Any:
    """What the builder of backbone `name` returned, when it is logits [B, K], float32.

    Raises:
      InputError: it is not.
    """
    received = None
    if not isinstance(logits, keras.KerasTensor):
        received = f"{type(logits).__name__}; one symbolic tensor would work, such as layers.classifier returns"
    elif tuple(logits.shape) != (None, num_classes):
        received = f"shape {tuple(logits.shape)}"
    elif keras.backend.standardize_dtype(logits.dtype) != "float32":
        received = f"{logits.dtype}; dtype='float32' for the last layer would work"
    if received:
        raise InputError(f"The builder of {name} does not return logits [B, {num_classes}]. Received: {received}.")
    return logits


def functional(name: str, inputs: list[Any], logits: Any) -> keras.Model:
    """The model that the builder of backbone `name` made.

    Raises:
      InputError: its logits depend on another input, or not on the image.
    """
    try:
        model = keras.Model(inputs, logits, name="branch")
    except ValueError as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"The builder of {name} does not make logits of its image and draw alone ({why}). Received: other inputs; "
            "layers that begin at the image would work."
        ) from error
    graph = call_graph(model)
    if not any(graph.inputs[0] in call.inputs for call in graph.calls):
        raise InputError(f"The builder of {name} does not look at the image. Received: logits of something else.")
    return model


def check_network(name: str, template: keras.Model) -> None:
    """Refuses what a stack would drop or take for something else.

    Raises:
      InputError: regularisers, constraints, activity losses, initializers without a seed, probabilities for logits,
        or variables whose names are no names of a stack's.
    """
    for variable in template.variables:
        if getattr(variable, "regularizer", None) is not None:
            raise _dropped(name, f"{variable.path} has a regulariser", variable.regularizer, _DECAY)
        if getattr(variable, "constraint", None) is not None:
            raise _dropped(name, f"{variable.path} has a constraint", variable.constraint, "a layer without one")
    for layer in compat.flat_layers(template):
        if getattr(layer, "activity_regularizer", None) is not None:
            raise _dropped(name, f"{layer.name} adds a loss", layer.activity_regularizer, _DECAY)
    _check_head(name, template)
    _check_names(name, [variable.path.replace("/", ".") for variable in template.variables])


def check_initializers(name: str, template: keras.Model) -> None:
    """Refuses initializers that draw numbers which no seed settles: the branches would be alike, or never the same.

    Raises:
      InputError: as said.
    """
    tried = {}
    for variable in template.variables:
        initializer = compat.initializer_of(variable)
        if isinstance(initializer, _CONSTANT) or is_seeded(initializer) or not callable(initializer):
            continue
        key = id(initializer), tuple(variable.shape)
        if key not in tried:
            tried[key] = [np.asarray(initializer(variable.shape, dtype=variable.dtype)) for _ in range(2)]
        if not np.array_equal(*tried[key], equal_nan=True):
            raise _dropped(
                name,
                f"{variable.path} has an initializer whose numbers no seed settles",
                initializer,
                "one with a `seed` among its arguments, as Keras's have,",
            )


def is_seeded(initializer: Any) -> bool:
    """Whether an initializer has a seed, so that each branch can have one of its own."""
    return "seed" in getattr(initializer, "get_config", dict)()


class _AddLoss:
    """Keras's `Layer.add_loss`, replaced while any thread builds; in threads that do not, it is what it was."""

    def __init__(self) -> None:
        self._lock, self._threads, self._original = threading.Lock(), 0, keras.Layer.add_loss
        self._here = threading.local()

    @contextlib.contextmanager
    def refused(self, name: str) -> Iterator[None]:
        """A layer that adds a loss, in this thread and context, is refused."""
        with self._lock:
            if not self._threads:
                self._original, keras.Layer.add_loss = keras.Layer.add_loss, self._replacement()
            self._threads += 1
        before, self._here.name = getattr(self._here, "name", None), name
        try:
            yield
        finally:
            self._here.name = before
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    keras.Layer.add_loss = self._original

    def _replacement(self) -> Callable[[keras.Layer, Any], None]:
        def add_loss(layer: keras.Layer, loss: Any) -> None:
            if name := getattr(self._here, "name", None):
                raise _dropped(name, f"{layer.name} adds a loss", layer, _DECAY)
            self._original(layer, loss)

        return add_loss


_ADD_LOSS = _AddLoss()


@contextlib.contextmanager
def no_losses(name: str) -> Iterator[None]:
    """Layers that are called in this context, symbolically too, add no losses; other threads may build, or not.

    Raises:
      InputError: one did.
    """
    try:
        with _ADD_LOSS.refused(name):
            yield
    except InputError as error:  # Keras adds lines to what is raised in a call
        lines = [line.strip() for line in compat.plain_text(str(error)).splitlines() if "Received: " in line]
        raise InputError(lines[0] if lines else str(error)) from None


_DECAY = "weight decay of the optimizer, or a loss of one's own train step,"
_CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.Constant)
_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid")


def _dropped(name: str, what: str, received: Any, instead: str) -> InputError:
    kind = getattr(received, "__name__", type(received).__name__)
    return InputError(f"In the builder of {name}, {what}, which a stack drops. Received: {kind}; {instead} would work.")


def _check_head(name: str, template: keras.Model) -> None:
    graph = call_graph(template)
    makers = {number: call for call in graph.calls for number in call.outputs}
    call = makers[graph.outputs[0]]
    while type(call.operation).__name__ in ("Reshape", "Flatten", "Identity", "Cast", "Squeeze"):
        call = makers[call.inputs[0]]
    last = call.operation
    while isinstance(last, keras.Sequential) and last.layers:
        last = last.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    kind = type(last).__name__
    if activation in _PROBABILITIES or kind in ("Softmax", "Sigmoid", "HardSigmoid"):
        raise InputError(
            f"The builder of {name} returns probabilities where the losses take logits. Received: "
            f"{getattr(last, 'name', kind)} with {activation or kind.lower()}; a linear last layer would work."
        )


def _check_names(name: str, names: list[str]) -> None:
    twice = [variable for variable, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"Two variables of {name} have one name. Received: {twice[0]}; layers of other names would work, where a "
            "slash and a dot are the same."
        )
    blocks = [variable for variable in names if placement.canonical_name(variable) != variable]
    if blocks:
        raise InputError(
            f"A variable of {name} is called as a block of branches on a device is. Received: {blocks[0]}; "
            f"{blocks[0].replace('of', '_of_', 1)}, say, would work."
        )
