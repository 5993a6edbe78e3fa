"""How a folder of images is laid out: a subfolder a class, or splits that have them. Names decide, and never alone."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Mapping

from divco_tf.errors import InputError, shown

# What people call the splits, in any case (the words that the library `datasets` knows).
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# What systems leave among a user's files: it is never an image or a class.
LEFTOVERS = {
    "thumbs.db": "Windows's cache of thumbnails",
    "ehthumbs.db": "Windows's cache of thumbnails",
    "desktop.ini": "Windows's settings of a folder",
    "$recycle.bin": "Windows's bin",
    "system volume information": "Windows's settings of a disk",
    ".ds_store": "macOS's settings of a folder",
    "icon\r": "macOS's icon of a folder",
    "__macosx": "what macOS adds to zip files",
    "@eadir": "Synology's folder of thumbnails",
    "lost+found": "what a check of the disk recovered",
    ".ipynb_checkpoints": "Jupyter's copies of files",
}
WOULD_WORK = (
    "a folder with a subfolder of images for each class, or with train/ and validation/ (or val/, valid/) or test/, or "
    "all three, that have them"
)


def composed(name: str) -> str:
    """A name as Unicode's composed form has it: "é" is spelt in two ways, and file systems hand out either."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def leftover(name: str) -> str | None:
    """What a file or folder of that name is, where a system has left it."""
    return "macOS's attributes of a file" if name.startswith("._") else LEFTOVERS.get(name.lower())


@contextlib.contextmanager
def listing(folder: pathlib.Path) -> Iterator[None]:
    """Refuses, in one line, a folder that cannot be listed.

    Raises:
      InputError: as said.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The folder of images cannot be listed ({error.strerror or error}). Received: "
            f"{shown(os.fsdecode(error.filename or folder))}; a folder that can be read, and is not changed meanwhile, "
            "would work."
        ) from error


def subfolders(folder: pathlib.Path) -> dict[str, str]:
    """The subfolders of a folder, linked ones too: their names as they are, by their composed names, in order.

    The order is that of code points, which no locale changes.

    Raises:
      InputError: it cannot be listed, two names look the same, or a link leads nowhere: it may have been a class.
    """
    found: dict[str, str] = {}
    with listing(folder), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or leftover(entry.name):
                continue
            if leads_nowhere(entry):
                if re.search(r"\.[A-Za-z]\w{0,4}$", entry.name):  # a file's name
                    continue
                raise InputError(
                    f"A link leads nowhere, so its class is missing. Received: {shown(folder / entry.name)}; mend or "
                    "remove it."
                )
            if not entry.is_dir():
                continue
            name = composed(entry.name)
            if name in found:
                raise InputError(
                    f"Two folders have one name, in two of Unicode's spellings. Received: {shown(folder / name)}; put "
                    "them together."
                )
            found[name] = entry.name
    return dict(sorted(found.items()))


def leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link whose target is missing, or a link to itself; other faults of it are raised."""
    if not entry.is_symlink():
        return False
    try:
        os.stat(entry.path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return True
    return False


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the class folders of each split are.

    Attributes:
      train: of the training images; of all where there is nothing else.
      validation: what is held out where `test` is there too; else what results are reported on.
      test: what results are reported on.
      notes: what there is to say of it, a line each.
    """

    train: pathlib.Path
    validation: pathlib.Path | None = None
    test: pathlib.Path | None = None
    notes: tuple[str, ...] = ()


def find_layout(root: pathlib.Path, *, tested_on: tuple[str, ...]) -> Layout:
    """The layout of a folder of images.

    Args:
      root: the folder.
      tested_on: the splits that results may be reported on: "test", "validation" or both.

    Raises:
      InputError: it cannot be listed, or may be read in more than one way: as splits, and as classes of such names.
    """
    names = tuple(subfolders(root).values())
    by_split = {split: [name for name in names if name.lower() in words] for split, words in SPLIT_FOLDERS.items()}
    by_split = {split: found for split, found in by_split.items() if found}
    if not by_split:
        _refuse_splits_by_other_names(root, names)
        return Layout(root)
    for split, found in by_split.items():
        if len(found) > 1:
            raise _ambiguous(root, names, f"{found[0]} and {found[1]} may both be the {split} images")
    split_names = {split: found[0] for split, found in by_split.items()}
    others = [name for name in names if name not in split_names.values()]
    have_classes = {split for split, name in split_names.items() if subfolders(root / name)}
    if len(split_names) == 1 and others and not have_classes:
        [name] = split_names.values()
        return Layout(root, notes=(f"{shown(name)}/ has images and no class folders, and is taken for a class",))
    return _splits(root, split_names, have_classes, others, tested_on)


def _splits(
    root: pathlib.Path, names: Mapping[str, str], have_classes: set[str], others: list[str], tested_on: tuple[str, ...]
) -> Layout:
    """The layout of a folder with splits; refuses one where they are not whole."""
    everything = [*names.values(), *others]
    if "train" not in names:
        found = next(iter(names.values()))
        raise _ambiguous(root, everything, f"{found}/ is the name of a split, and no train/ lies beside it")
    if len(names) == 1 and have_classes:
        raise InputError(
            f"The folder of images has {names['train']}/ and neither validation/ nor test/ beside it. Received: "
            f"{shown(root)}; data_dir={shown(root / names['train'])} would work (a share is set apart for testing), or "
            "another name if that is a class."
        )
    notes, used = [], {}
    for split, name in names.items():
        if split == "test" and "test" not in tested_on and "validation" in names:  # ImageNet's has no labels
            notes.append(f"{shown(name)}/ is left out: results are reported on {shown(names['validation'])}/")
        elif split in have_classes:
            used[split] = name
        else:
            raise _ambiguous(root, everything, f"{name}/ is the name of a split, and has no class folders")
    if others:
        notes.append(f"beside {shown(' and '.join(used.values()))}, {_counted(others)} left out")
    return Layout(**{split: root / name for split, name in used.items()}, notes=tuple(notes))


def _counted(names: list[str]) -> str:
    told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown(told)} {'is' if len(names) == 1 else 'are'}"


def _refuse_splits_by_other_names(root: pathlib.Path, names: tuple[str, ...]) -> None:
    """Refuses seg_train beside seg_test, or train2017 beside val2017, if both have subfolders or are all there is."""
    meant = {name: split for name in names if (split := _meant(name))}
    if len(meant) < len(names):
        meant = {name: split for name, split in meant.items() if subfolders(root / name)}
    by_split = {split: name for name, split in meant.items()}
    if "train" in by_split and len(by_split) > 1:
        one, other = list(by_split.values())[:2]
        raise _ambiguous(root, names, f"{one} and {other} look like splits by their names")


def _meant(name: str) -> str | None:
    """The split that a word of a name stands for, or begins with if it is a long one: "trainset", "test_images"."""
    words = re.findall("[a-z]+", name.lower())
    for split, known in SPLIT_FOLDERS.items():
        if any(word in known or word.startswith(tuple(k for k in known if len(k) > 3)) for word in words):
            return split
    return None


def _ambiguous(root: pathlib.Path, names: list[str] | tuple[str, ...], why: str) -> InputError:
    told = ", ".join(sorted(names)[:6]) + (", ..." if len(names) > 6 else "")
    return InputError(
        f"The folder of images may be read in two ways: {shown(why)}. Received: {shown(root)}, with {shown(told)}; "
        f"{WOULD_WORK}; rename classes that are called so."
    )
