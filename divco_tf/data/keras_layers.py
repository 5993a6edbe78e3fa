"""Preprocessing layers of Keras and KerasCV as operations on a batch, drawing from a key that (seed, step) settles.

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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divco_tf import compat, fields, keras_settings
from divco_tf.data import draws
from divco_tf.data.batch_ops import BatchOperation
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean

_MODULES = ("keras.layers", "keras_cv.layers")
_MIXERS = {"MixUp": "mixup_alpha", "CutMix": "cutmix_alpha"}
_TRIAL_IMAGES = 16  # a layer that mirrors at random repeats itself by chance once in 2**16


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
                f"{self.name} does not take these arguments ({told(error)}). {received}; it takes {accepted}."
            ) from error
        try:
            changed = _call(lambda key: layer, views, 0)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        except Exception as error:
            raise InputError(
                f"{self.name} fails on a batch of RGB images ({told(error)}). {received}; other arguments, or another "
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


def told(error: Exception) -> str:
    """What a Keras error says, in one line: no terminal colours, list of arguments, lines of code and full stop."""
    text = str(error)
    said = re.search(r"\x1b\[1m(.*?)\x1b\[0m", text, re.DOTALL)
    text = (said.group(1) if said else text).strip()
    if text.startswith("in user code:"):  # a graph's error: the stack, then the message
        text = text.splitlines()[-1]
    return " ".join(text.split())[:200].rstrip(". ")
