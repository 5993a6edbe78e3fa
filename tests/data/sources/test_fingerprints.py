"""What tells data from others, so that a run goes on with its own."""

import pytest

from divco_tf.data.sources.fingerprints import FILES, difference, file_parts, same_data, told_of_data


@pytest.fixture
def folder(tmp_path):
    for number in range(200):
        (tmp_path / f"{number}.bmp").write_bytes(bytes([number]) * 50_000)
    return tmp_path


def parts(folder) -> list[int]:
    return file_parts(folder, sorted(path.name for path in folder.iterdir()))


def differ(one, other) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_a_part_changes_with_names_sizes_and_contents_of_its_files(folder):
    before = parts(folder)
    assert len(before) == 32 and before == parts(folder)
    file = folder / "7.bmp"
    file.write_bytes(b"longer" * 10_000)
    assert differ(before, parts(folder)) == 1
    file.rename(folder / "other.bmp")
    assert 1 <= differ(before, parts(folder)) <= 2
    for path in folder.iterdir():  # of equal sizes, as BMP files have them
        path.write_bytes(b"\xff" * path.stat().st_size)
    assert differ(before, parts(folder)) == 32


def test_a_file_that_is_gone_is_another_one(folder):
    names = sorted(path.name for path in folder.iterdir())
    before = file_parts(folder, names)
    (folder / "7.bmp").unlink()
    assert differ(before, file_parts(folder, names)) == 1


OLD = {"images": 3, "labels_crc32": 5}
NEW = {**OLD, FILES: [0] * 30 + [1, 2]}


@pytest.mark.parametrize(
    ("before", "now", "same", "says"),
    [
        (NEW, NEW, True, None),
        (OLD, OLD, True, None),
        (None, None, True, None),
        (None, NEW, False, None),
        (OLD, NEW, True, "did not record which image files"),
        (OLD | {"images": 4}, NEW, False, None),
        (NEW, NEW | {FILES: [0] * 30 + [1, 3]}, False, None),
        ({**OLD, FILES: list(range(32))}, {**OLD, FILES: [99, *range(1, 32)]}, True, "some image files have changed"),
        ({**OLD, FILES: list(range(32))}, {**OLD, FILES: list(range(50, 82))}, False, None),
    ],
)
def test_a_run_goes_on_with_the_data_that_it_was_begun_with(before, now, same, says):
    assert same_data(before, now) is same
    if same:
        assert (told_of_data(before, now) or "").find(says or "") >= 0 and bool(says) == bool(told_of_data(before, now))


def test_a_difference_is_named():
    assert difference(OLD, NEW | {"images": 4}) == "data.images 4 (there 3)"
    assert difference(NEW, NEW | {FILES: [9] * 32}) == "data of as many images and the same labels, but other files"
