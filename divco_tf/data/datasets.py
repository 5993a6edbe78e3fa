"""Facts of each dataset: classes, size, normalisation, splits, where it comes from. A table, light to import."""

import dataclasses

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean

SPLITS = ("train", "held_out", "test")
ALL = "all"
"""In place of a split: every image of a folder of classes that has no splits."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a dataset before it is read."""

    name: str
    num_classes: int | None  # None: known once the folder is read
    image_size: int  # pixels a side, of what the networks see
    mean: tuple[float, float, float]  # of RGB in 0..1
    std: tuple[float, float, float]
    # How it is read: "digits", "tfds", or "folder" (of images; or as TFDS prepared it, if it lies there)
    reader: str = "tfds"
    tfds_name: str | None = None  # its name in TensorFlow Datasets, if it is there
    train_splits: tuple[str, ...] = ("train",)  # as stored; "train" and "held_out" are made of them
    test_splits: tuple[str, ...] = ("test",)
    test_share: float = 0.0  # the share that is set apart by hash where no test images are stored
    class_names: tuple[str, ...] | None = None
    train_images: int | None = None  # in train_splits, where that is known before they are read
    resize: str = "stretch"  # how images of another size are brought to image_size, see Preprocessing


# Means and standard deviations are those the paper's authors train with. Digits': all 1,797 images of scikit-learn's
# load_digits, grey levels 0..16 stored as round(level * 255 / 16), computed once over all their pixels.
DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="digits",
            reader="digits",
            num_classes=10,
            image_size=8,
            mean=(0.3053,) * 3,
            std=(0.3759,) * 3,
            test_splits=(),
            test_share=0.2,
            class_names=tuple("0123456789"),
        ),
        Dataset(
            name="cifar10",
            num_classes=10,
            image_size=32,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
            tfds_name="cifar10",
            train_images=50_000,
            class_names=tuple(_CIFAR10_CLASSES.split()),
        ),
        Dataset(
            name="cifar100",
            num_classes=100,
            image_size=32,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            tfds_name="cifar100",
            train_images=50_000,
            class_names=tuple(_CIFAR100_CLASSES.split()),
        ),
        Dataset(
            name="svhn",
            num_classes=10,
            image_size=32,
            mean=(0.4309, 0.4302, 0.4463),
            std=(0.1965, 0.1983, 0.1994),
            tfds_name="svhn_cropped",
            train_splits=("train", "extra"),
            train_images=73_257 + 531_131,
            class_names=tuple("0123456789"),
        ),
        Dataset(
            name="imagenet",
            reader="folder",
            num_classes=1000,
            image_size=224,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            tfds_name="imagenet2012",
            train_images=1_281_167,
            test_splits=("validation",),
            resize="shorter_side_crop",
        ),
        # A user's own folder, a class per subfolder; natural images are closest to ImageNet's normalisation.
        Dataset(
            name="image_folder",
            reader="folder",
            num_classes=None,
            image_size=224,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            test_splits=("test", "validation"),  # the first that is there
            test_share=0.2,
            resize="shorter_side_crop",
        ),
    )
}


def get_dataset(name: str) -> Dataset:
    """The facts of the dataset called `name`.

    Raises:
      InputError: nothing is called so.
    """
    if name not in DATASETS:
        raise InputError(f"Unknown dataset. Received: {name}.{did_you_mean(name, DATASETS)}")
    return DATASETS[name]
