"""Divide and Co-training (arXiv 2011.14660) in TensorFlow and Keras.

Divide one large network into S small ones of the same budget, train them together on different views of the same
images, average their predictions. Public names are found here and imported when first used (PEP 562).
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from divco_tf import keras_settings, saved_classes

_PUBLIC = {
    "AdamW": "divco_tf.training.optim.optimizer",
    "ArraySource": "divco_tf.data.sources",
    "Augmentation": "divco_tf.data.views.augmentations",
    "BranchStack": "divco_tf.models.branch_stack",
    "CoTraining": "divco_tf.training.losses",
    "CoTrainingModel": "divco_tf.training.cotraining",
    "Erasing": "divco_tf.data.views.policies",
    "Experiment": "divco_tf.runs.experiment",
    "InputError": "divco_tf.errors",
    "KerasLayer": "divco_tf.data.batch_ops",
    "LearningRate": "divco_tf.training.optim.learning_rate",
    "OptimizerConfig": "divco_tf.training.optim.optimizer",
    "Options": "divco_tf.runs.options",
    "Preprocessing": "divco_tf.data.preprocessing",
    "RMSprop": "divco_tf.training.optim.optimizer",
    "RMSpropTF": "divco_tf.training.optim.optimizer",
    "Range": "divco_tf.data.views.augmentations",
    "ResizedCrop": "divco_tf.data.views.policies",
    "RunError": "divco_tf.errors",
    "SGD": "divco_tf.training.optim.optimizer",
    "Source": "divco_tf.data.sources",
    "Space": "divco_tf.data.views.augmentations",
    "Step": "divco_tf.data.views.augmentations",
    "ViewPipeline": "divco_tf.data.pipeline",
    "ViewPolicy": "divco_tf.data.views.policies",
    "WarmStart": "divco_tf.runs.warm_start",
    "build": "divco_tf.models.branch_stack",
    "by_split": "divco_tf.models.divide",
    "by_sqrt_split": "divco_tf.models.divide",
    "by_table": "divco_tf.models.divide",
    "by_whole_split": "divco_tf.models.divide",
    "divide": "divco_tf.models.divide",
    "divide_weight_decay": "divco_tf.models.divide",
    "divided": "divco_tf.models.divide",
    "evaluate": "divco_tf.runs.evaluation",
    "evaluation_dataset": "divco_tf.data.pipeline",
    "export": "divco_tf.serving.export",
    "get_dataset": "divco_tf.data.datasets",
    "get_policy": "divco_tf.data.views.policies",
    "import_checkpoint": "divco_tf.runs.imported",
    "import_state_dict": "divco_tf.models.torch_weights",
    "kept": "divco_tf.models.divide",
    "load": "divco_tf.runs.model_dir",
    "open_source": "divco_tf.data.sources",
    "read_checkpoint": "divco_tf.torch_files.checkpoint",
    "register_augmentation": "divco_tf.data.views.augmentations",
    "register_backbone": "divco_tf.models.backbones.registry",
    "register_backbones": "divco_tf.models.backbones.registry",
    "register_batch_operation": "divco_tf.data.batch_ops",
    "register_operation": "divco_tf.data.views.operations",
    "spec_from_json": "divco_tf.models.spec_json",
    "spec_to_json": "divco_tf.models.spec_json",
    "summarize": "divco_tf.models.summary",
    "train": "divco_tf.runs.loop",
}
_WITHOUT_KERAS = frozenset(
    (
        "divco_tf.data.datasets",
        *(f"divco_tf.data.views.{module}" for module in ("augmentations", "operations", "policies")),
        *(f"divco_tf.models.{module}" for module in ("backbones.registry", "divide", "spec_json")),
        "divco_tf.torch_files.checkpoint",
        "divco_tf.errors",
    )
)
__all__ = sorted(_PUBLIC)

saved_classes.announce()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("divco_tf")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'divco_tf' has no attribute {name!r}")
    if _PUBLIC[name] not in _WITHOUT_KERAS:
        keras_settings.check_backend()
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if TYPE_CHECKING:  # what a type checker and an editor see
    from divco_tf.data.batch_ops import KerasLayer as KerasLayer
    from divco_tf.data.batch_ops import register_batch_operation as register_batch_operation
    from divco_tf.data.datasets import get_dataset as get_dataset
    from divco_tf.data.pipeline import ViewPipeline as ViewPipeline
    from divco_tf.data.pipeline import evaluation_dataset as evaluation_dataset
    from divco_tf.data.preprocessing import Preprocessing as Preprocessing
    from divco_tf.data.sources import ArraySource as ArraySource
    from divco_tf.data.sources import Source as Source
    from divco_tf.data.sources import open_source as open_source
    from divco_tf.data.views.augmentations import Augmentation as Augmentation
    from divco_tf.data.views.augmentations import Range as Range
    from divco_tf.data.views.augmentations import Space as Space
    from divco_tf.data.views.augmentations import Step as Step
    from divco_tf.data.views.augmentations import register_augmentation as register_augmentation
    from divco_tf.data.views.operations import register_operation as register_operation
    from divco_tf.data.views.policies import Erasing as Erasing
    from divco_tf.data.views.policies import ResizedCrop as ResizedCrop
    from divco_tf.data.views.policies import ViewPolicy as ViewPolicy
    from divco_tf.data.views.policies import get_policy as get_policy
    from divco_tf.errors import InputError as InputError
    from divco_tf.errors import RunError as RunError
    from divco_tf.models.backbones.registry import register_backbone as register_backbone
    from divco_tf.models.backbones.registry import register_backbones as register_backbones
    from divco_tf.models.branch_stack import BranchStack as BranchStack
    from divco_tf.models.branch_stack import build as build
    from divco_tf.models.divide import by_split as by_split
    from divco_tf.models.divide import by_sqrt_split as by_sqrt_split
    from divco_tf.models.divide import by_table as by_table
    from divco_tf.models.divide import by_whole_split as by_whole_split
    from divco_tf.models.divide import divide as divide
    from divco_tf.models.divide import divide_weight_decay as divide_weight_decay
    from divco_tf.models.divide import divided as divided
    from divco_tf.models.divide import kept as kept
    from divco_tf.models.spec_json import spec_from_json as spec_from_json
    from divco_tf.models.spec_json import spec_to_json as spec_to_json
    from divco_tf.models.summary import summarize as summarize
    from divco_tf.models.torch_weights import import_state_dict as import_state_dict
    from divco_tf.runs.evaluation import evaluate as evaluate
    from divco_tf.runs.experiment import Experiment as Experiment
    from divco_tf.runs.imported import import_checkpoint as import_checkpoint
    from divco_tf.runs.loop import train as train
    from divco_tf.runs.model_dir import load as load
    from divco_tf.runs.options import Options as Options
    from divco_tf.runs.warm_start import WarmStart as WarmStart
    from divco_tf.serving.export import export as export
    from divco_tf.torch_files.checkpoint import read_checkpoint as read_checkpoint
    from divco_tf.training.cotraining import CoTrainingModel as CoTrainingModel
    from divco_tf.training.losses import CoTraining as CoTraining
    from divco_tf.training.optim.learning_rate import LearningRate as LearningRate
    from divco_tf.training.optim.optimizer import SGD as SGD
    from divco_tf.training.optim.optimizer import AdamW as AdamW
    from divco_tf.training.optim.optimizer import OptimizerConfig as OptimizerConfig
    from divco_tf.training.optim.optimizer import RMSprop as RMSprop
    from divco_tf.training.optim.optimizer import RMSpropTF as RMSpropTF
