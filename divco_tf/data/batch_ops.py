"""Operations on a whole batch of views: own functions by name, and Keras's and KerasCV's preprocessing layers.

An operation sees RGB in 0..255, as Keras's layers expect it, and draws from a key that (seed, step) settles. It sees
a batch, and draws by position in it: a host that applies it to its slice gets other views than from the whole batch.

Which layers a key settles (Keras 3.15, KerasCV 0.9; found by the trial that `KerasLayer.build` makes): all image layers
of `keras.layers` that draw, but AugMix, which asks Python's `random` too; all those of `keras_cv.layers` that draw and
keep an image's shape, but AugMix and RandomCutout(fill_mode="gaussian_noise"), which ask `tf.random`. Under
TensorFlow's op determinism some of KerasCV's (RandAugment, RandomColorJitter, RandomColorDegeneration, RandomCrop,
JitteredResize) are there only after `tf.random.set_global_generator`.

Layers run eagerly. Most take 20 to 300 us a view of 32x32; those that go image by image are no good for training:
`keras.layers.RandAugment` 1.6 ms, KerasCV's RandAugment, GridMask and RandomChannelShift 17 ms.
"""

import contextlib
import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divco_tf import compat, fields, keras_settings
from divco_tf.data import draws
from divco_tf.errors import InputError
from divco_tf.registry import Registry, did_you_mean

BatchOperation = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""`f(views, labels, key) -> (views, labels)`: float32 [B, S, H, W, 3], RGB in 0..255, and [B, K]; shapes stay.

The arrays are the function's own to change. `key` is in [0, 2**63): `np.random.default_rng(key)` draws the same for a
step each time. It is called from several threads at once.
"""

BATCH_OPERATIONS: Registry[BatchOperation] = Registry("batch operation", entry_points="divco_tf.batch_operations")

_MODULES = ("keras.layers", "keras_cv.layers")
_MIXERS = {"MixUp": "mixup_alpha", "CutMix": "cutmix_alpha"}
_TRIAL_IMAGES = 16  # a layer that mirrors at random repeats itself by chance once in 2**16


def register_batch_operation(name: str) -> Callable[[BatchOperation], BatchOperation]:
    """Decorates a batch operation: registers it under `name`.

    Raises:
      InputError: the name is taken.
    """

    def decorate(operation: BatchOperation) -> BatchOperation:
        BATCH_OPERATIONS.add(name, operation)
        return operation

    return decorate


@dataclasses.dataclass(frozen=True)
class KerasLayer:
    """A preprocessing layer of Keras or KerasCV as a batch operation, applied to all views [B * S, H, W, 3].

    Attributes:
      name: "keras.layers.RandomBrightness", "keras_cv.layers.GridMask".
      arguments: of its constructor, JSON-able. `seed` comes from the run, and `value_range` is (0, 255) unless given.
      repeatable: refuses a layer that draws otherwise when a batch is asked for again; False accepts it.

    Raises:
      InputError: the arguments are no JSON, or have a seed.
    """

    name: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    repeatable: bool = True

    def __post_init__(self) -> None:
        fields.check(self)
        try:
            arguments = json.loads(json.dumps(dict(self.arguments), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The arguments of {self.name} are written down with a run. Received: {self.arguments!r}; a dict of "
                "numbers, strings and lists would work."
            ) from error
        if "seed" in arguments:
            raise InputError(
                f"The seed of {self.name} comes from the run's seed and the step. Received: "
                f"seed={arguments['seed']}; leaving it out would work."
            )
        object.__setattr__(self, "arguments", arguments)

    def build(self, *, image_size: int) -> BatchOperation:
        """The operation, after a trial on noise of [16, image_size, image_size, 3].

        Raises:
          InputError: there is no such layer, its arguments do not fit, it changes shapes, mixes examples or learns,
            or it does not repeat itself and has to.
        """
        make = functools.partial(_make, self._layer_class(), self.arguments)
        views = np.random.default_rng(0).integers(0, 256, (_TRIAL_IMAGES, 1, image_size, image_size, 3))
        trials = [self._trial(make, views.astype(np.float32)) for _ in range(2)]
        if self.repeatable and not np.array_equal(*trials):
            raise InputError(
                f"{self.name} draws numbers that no seed settles, so a resumed run would see other views. Received: "
                f"repeatable=True for {self.arguments}; repeatable=False accepts that, or another layer."
            )
        return lambda views, labels, key: (_call(make, views, key), labels)

    def _layer_class(self) -> type[keras.layers.Layer]:
        prefix, _, name = self.name.rpartition(".")
        if name in _MIXERS:
            raise InputError(
                f"Layers that mix examples have no place among the batch operations. Received: {self.name}; "
                f"{_MIXERS[name]} does it, for all views alike."
            )
        found = _layers(prefix).get(name) if prefix in _MODULES else None
        if found is None:
            raise InputError(
                f"Not a layer of {' or '.join(_MODULES)}. Received: {self.name}.{did_you_mean(self.name, _names())}"
            )
        return found

    def _trial(self, make: Callable[[int], keras.layers.Layer], views: np.ndarray) -> np.ndarray:
        received = f"Received: {self.arguments}"
        try:
            with _thread_state():
                layer = make(0)
        except Exception as error:
            accepted = ", ".join(inspect.signature(self._layer_class()).parameters)
            raise InputError(
                f"{self.name} does not take these arguments ({_told(error)}). {received}; it takes {accepted}."
            ) from error
        try:
            changed = _call(lambda key: layer, views, 0)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        except Exception as error:
            raise InputError(
                f"{self.name} fails on a batch of RGB images ({_told(error)}). {received}; other arguments, or another "
                "layer, would work."
            ) from error
        if layer.trainable_variables:
            raise InputError(
                f"{self.name} has weights to learn. {received}; a layer that only preprocesses would work."
            )
        if changed.max() <= 1:
            raise InputError(
                f"{self.name} gives RGB in 0..1 for RGB in 0..255. {received}; value_range=[0, 255] would work, where "
                "the layer has it."
            )
        return changed


class BatchOperations:
    """Operations in a row on the normalised views of a batch.

    Args:
      operations: names of registered ones, Keras layers, or functions.
      image_size: H = W, in pixels.
      mean: of the normalisation, RGB in 0..1.
      std: likewise.

    Raises:
      InputError: no operation has that name, or a layer is refused.
    """

    def __init__(
        self,
        operations: Sequence[str | KerasLayer | BatchOperation],
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._operations = [_named(operation, image_size) for operation in operations]
        self._mean, self._std = np.asarray(mean, np.float64), np.asarray(std, np.float64)

    def __len__(self) -> int:
        return len(self._operations)

    def __call__(self, views: np.ndarray, labels: np.ndarray, *, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch after all operations: a function of its arguments, as far as the operations are.

        Args:
          views: float32 [B, S, H, W, 3], normalised; not changed.
          labels: float32 [B, K]; not changed.
          seed: of the run.
          step: of the batch.

        Returns:
          Views and labels of the same shapes and types; the arguments themselves where there is no operation.

        Raises:
          InputError: an operation returned something else than views and labels of these shapes.
        """
        if not self._operations:
            return views, labels
        views, labels = self._to_pixels(views), labels.copy()
        for place, (name, operation) in enumerate(self._operations):
            key = draws.fold(draws.BATCH_OPERATION, seed, step, place) >> 1
            views, labels = _applied(name, operation, views, labels, key)
        return self._to_normalised(views), labels

    def _to_pixels(self, views: np.ndarray) -> np.ndarray:
        pixels = _by_channel(views, 255 * self._std, 255 * self._mean)
        # What was a whole number becomes one again: layers that count grey levels cut off the fraction. What erasing
        # filled with the mean is none. One example after the other, since it fits into the cache: twice as fast.
        for example in pixels:
            whole = np.rint(example)
            np.copyto(example, whole, where=np.abs(example - whole) < 1e-3)
        return pixels

    def _to_normalised(self, pixels: np.ndarray) -> np.ndarray:
        # As in the kernel `normalise`, so that untouched pixels come out bit by bit as they went in.
        return _by_channel(pixels, 1 / (255 * self._std), -self._mean / self._std)


def _by_channel(images: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """`images` * `scale` + `shift` in float32, row by row: numpy is many times slower where the last axis is 3 long."""
    rows = images.reshape(-1, images.shape[-2] * 3)
    scale, shift = (np.tile(values, images.shape[-2]).astype(np.float32) for values in (scale, shift))
    changed = rows * scale
    changed += shift
    return changed.reshape(images.shape)


def _named(operation: str | KerasLayer | BatchOperation, image_size: int) -> tuple[str, BatchOperation]:
    if isinstance(operation, str):
        return operation, BATCH_OPERATIONS.get(operation)
    if isinstance(operation, KerasLayer):
        return operation.name, operation.build(image_size=image_size)
    if not callable(operation):
        raise InputError(
            f"A batch operation is a function, a name or a KerasLayer. Received: {operation!r}; one of them would work."
        )
    return getattr(operation, "__name__", repr(operation)), operation


def _applied(
    name: str, operation: BatchOperation, views: np.ndarray, labels: np.ndarray, key: int
) -> tuple[np.ndarray, np.ndarray]:
    shapes = views.shape, labels.shape
    try:
        result = operation(views, labels, key)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The batch operation {name} failed ({type(error).__name__}: {_told(error)}). Received: views "
            f"{list(shapes[0])}; mend the operation, or take it out."
        ) from error
    if not isinstance(result, tuple) or len(result) != 2:
        raise InputError(
            f"A batch operation returns (views, labels). Received: {type(result).__name__} from {name}; a tuple of the "
            "two would work."
        )
    arrays = tuple(np.asarray(array) for array in result)
    if any(array.dtype.kind not in "fiu" for array in arrays):
        raise InputError(
            f"A batch operation returns numbers. Received: {arrays[0].dtype} and {arrays[1].dtype} from {name}; "
            "float32 would work."
        )
    arrays = tuple(np.require(array, np.float32, "CW") for array in arrays)
    if (received := tuple(array.shape for array in arrays)) != shapes:
        raise InputError(
            f"A batch operation keeps the shapes of views and labels. Received: {received[0]} and {received[1]} from "
            f"{name}; {shapes[0]} and {shapes[1]} would work."
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(f"A batch operation returns finite numbers. Received: NaN or infinity from {name}; mend it.")
    return arrays


def _layers(module: str) -> dict[str, type[keras.layers.Layer]]:
    """The layers of a module by name; KerasCV is imported only when it is asked for.

    Raises:
      InputError: KerasCV cannot be imported.
    """
    try:
        found = compat.keras_cv().layers if module == "keras_cv.layers" else keras.layers
    except ImportError as error:
        raise InputError(str(error)) from error
    return {
        name: value
        for name, value in vars(found).items()
        if isinstance(value, type) and issubclass(value, keras.layers.Layer)
    }


def _names() -> Iterator[str]:
    """Of all layers that can be had."""
    for module in _MODULES:
        with contextlib.suppress(InputError):
            yield from (f"{module}.{name}" for name in _layers(module))


def _make(layer_class: type[keras.layers.Layer], arguments: Mapping[str, Any], key: int) -> keras.layers.Layer:
    """A new layer, seeded by `key`: threads share none, since KerasCV's layers hold their generators' state.

    Given a seed, a constructor draws none from Python's global generator, nor asks for TensorFlow's, which is not there
    where operations have to be deterministic. To KerasCV, 0 is no seed.
    """
    parameters = inspect.signature(layer_class).parameters
    ours = {"seed": 1} if "seed" in parameters or _is_keras_cv(layer_class) else {}
    if "value_range" in parameters:
        ours["value_range"] = (0, 255)
    # JSON knows lists only; some layers insist on tuples.
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    layer = layer_class(**{**ours, **given})
    states = [variable for variable in layer.variables if variable.name == "seed_generator_state"]
    # TensorFlow takes seeds of two 32-bit integers.
    for number, state in enumerate(states):
        state.assign([draws.fold(key, number, word) >> 33 for word in range(2)])
    if _is_keras_cv(layer_class):
        _seed_keras_cv(layer, key)
    return layer


def _is_keras_cv(layer_class: type[keras.layers.Layer]) -> bool:
    return any(base.__name__.endswith("BaseImageAugmentationLayer") for base in layer_class.__mro__)


def _seed_keras_cv(layer: keras.layers.Layer, key: int) -> None:
    """Lets a KerasCV 0.9 layer, and those in it, draw from one generator.

    They draw from `tf.random.Generator`s, and strengths through samplers that ask `tf.random`, whose seed is global.
    """
    uniform_sampler, normal_sampler = compat.keras_cv_samplers()
    generator = tf.random.Generator.from_seed(key)

    def uniform(sampler: Any, shape: Any = (), dtype: Any = "float32") -> tf.Tensor:
        return generator.uniform(shape, sampler.lower, sampler.upper, dtype)

    def normal(sampler: Any, shape: Any = (), dtype: Any = "float32") -> tf.Tensor:
        drawn = generator.normal(shape, sampler.mean, sampler.stddev, dtype)
        return tf.clip_by_value(drawn, sampler.min_value, sampler.max_value)

    for part in compat.flat_layers(layer):
        for name, value in list(vars(part).items()):
            if isinstance(value, tf.random.Generator):
                setattr(part, name, generator)
            elif isinstance(value, uniform_sampler | normal_sampler):
                draw = uniform if isinstance(value, uniform_sampler) else normal
                setattr(part, name, functools.partial(draw, value))


def _call(make: Callable[[int], keras.layers.Layer], views: np.ndarray, key: int) -> np.ndarray:
    images = views.reshape(-1, *views.shape[2:])
    with _thread_state():
        changed = make(key)(images, training=True)
    if not isinstance(changed, tf.Tensor) or changed.shape != images.shape:
        raise InputError(
            f"A batch operation keeps the shape of images. Received: {getattr(changed, 'shape', type(changed))} for "
            f"{images.shape}; a layer, or arguments, that keep it would work."
        )
    return np.require(changed.numpy(), np.float32, "CW").reshape(views.shape)


@contextlib.contextmanager
def _thread_state() -> Iterator[None]:
    """On the CPU, in float32: both are settings of a thread, and data threads have not those of the main one."""
    with keras_settings.ours(), tf.device("CPU:0"):
        yield


def _told(error: Exception) -> str:
    """What a Keras error says, in one line: no terminal colours, list of arguments, lines of code and full stop."""
    text = str(error)
    said = re.search(r"\x1b\[1m(.*?)\x1b\[0m", text, re.DOTALL)
    text = (said.group(1) if said else text).strip()
    if text.startswith("in user code:"):  # a graph's error: the stack, then the message
        text = text.splitlines()[-1]
    return " ".join(text.split())[:200].rstrip(". ")
