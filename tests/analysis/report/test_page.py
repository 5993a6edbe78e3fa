"""The page stands alone, says what there is, and is the same for the same input."""

import html.parser
import json
import re

import numpy as np
import pytest

from divco_tf.analysis.judged import judged, save_judged
from divco_tf.analysis.report.page import report
from divco_tf.analysis.report.pictures import thumbnail
from divco_tf.data.sources import open_source
from tests.analysis.report import synthetic

SECTIONS = [
    "differences",
    "arms",
    "costs",
    "confidence",
    "branches",
    "learning",
    "mistakes",
    "images",
    "failed",
    "made",
]
VOID = {"meta", "link", "img", "wbr"}
INLINE = {"b", "span", "wbr"}


class Page(html.parser.HTMLParser):
    """Ids, links and text of a page whose elements are closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.addresses, self.images, self.words, self._open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.words += [" "] * (tag not in INLINE)
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[name] for name in ("href", "src", "xlink:href") if name in attributes]
        self.images += [attributes] if tag == "img" or attributes.get("role") == "img" else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        self.words += [" "] * (tag not in INLINE)
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def sections(self):
        return [name for name in self.ids if name in SECTIONS]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A sweep with all that a report tells of."""
    place = tmp_path_factory.mktemp("sweeps") / "grown"
    failures = [{"split_factor": 3, "seed": 0}]
    calibrated = {"temperature": 1.25, "negative_log_likelihood": 0.4, "expected_calibration_error": 0.02}
    calibrated |= {"set_size": 1.5, "set_coverage": 0.91}
    return synthetic.sweep(
        place, seeds=range(2), amounts=(500, 2000), curve=3, failures=failures, calibrated=calibrated
    )


@pytest.fixture(scope="module")
def text(grown):
    return report(grown, command="divco-report 'a folder' --out x.html")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_section_is_there_and_linked(page):
    assert page.sections == SECTIONS
    assert [address for address in page.addresses if address.startswith("#") and address[1:] in SECTIONS] == [
        f"#{name}" for name in SECTIONS
    ]


def test_nothing_is_fetched(text, page):
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.search(r"https?://(?!www\.w3\.org/(2000/svg|1999/xlink))", text)
    assert "@import" not in text and "<script src" not in text


def test_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids))


def test_every_picture_has_a_name(page):
    assert len(page.images) > 20
    assert all(image.get("alt") or image.get("aria-label") for image in page.images)


def test_the_verdict_versions_command_and_failures_are_told(page):
    assert "None of 4 comparisons shows a difference. The largest: S=4" in page.text
    assert "divco-report 'a folder' --out x.html" in page.text
    assert "python 3.11.7, divco_tf 0.3.0" in page.text
    assert "split_factor=3,seed=0 the loss is not finite" in page.text
    assert "12 done, 1 failed" in page.text


def test_temperatures_and_prediction_sets_are_told_where_rows_have_them(page):
    assert "Sets with the right class, % S=1, 500 images 1.250 1.250 to 1.250 0.400 0.400 to 0.400" in page.text


def test_the_same_input_is_the_same_page(grown, text):
    assert report(grown, command="divco-report 'a folder' --out x.html") == text


def test_branches_answers_stand_beneath_the_images_they_disagree_on(page, grown):
    source = open_source("digits", "test")
    found = judged(synthetic.outputs(source.labels, split_factor=4, skill=6.5 + 0.8 * np.log(2)))
    most = int(np.argmax(found.disagreement.astype(np.float16)))
    told = ", ".join(map(str, found.branch_classes[most]))
    assert f"Right {source.labels[most]}" in page.text and f"Branches {told}" in page.text
    assert thumbnail(source.read(most)) in page.addresses


def test_two_cells_of_one_seed_are_a_page(tmp_path):
    page = Page(report(synthetic.sweep(tmp_path / "two", arms=synthetic.ARMS[:2], seeds=[0])))
    assert page.sections == [name for name in SECTIONS if name not in ("learning", "failed")]
    assert "interval over images only" in page.text


def test_one_branch_alone_is_a_page(tmp_path):
    page = Page(report(synthetic.sweep(tmp_path / "single", arms=synthetic.ARMS[:1])))
    assert page.sections == ["arms", "confidence", "mistakes", "images", "made"]
    assert "there is no other arm to compare it with" in page.text and "Branches" not in page.text


def test_failures_alone_are_a_page(tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps(synthetic.failed({"split_factor": 4}, "no data")) + "\n")
    page = Page(report(tmp_path))
    assert page.sections == ["failed", "made"] and "No cell is done: there is nothing to compare." in page.text


def test_rows_without_answers_are_a_page(tmp_path):
    folder = synthetic.sweep(tmp_path / "rows", arms=synthetic.ARMS[:2], seeds=range(2))
    for path in (folder / "judged").iterdir():
        path.unlink()
    page = Page(report(folder))
    assert page.sections == ["differences", "arms", "costs", "branches", "made"]  # the calibration error is of rows


def test_names_from_outside_are_text(tmp_path):
    hostile = "<img src=x onerror=alert(1)>&\"'"
    arms, failures = (
        ({"split_factor": 1}, {"split_factor": 4, "views": hostile}),
        [{"split_factor": 3, "views": hostile}],
    )
    folder = synthetic.sweep(tmp_path / "<b>bold", arms=arms, seeds=[0], failures=failures)
    text = report(folder, command=hostile)
    page = Page(text)
    assert "<img src=x" not in text and "<b>bold" not in text
    assert f"S=4, views={hostile}" in page.text and not any(image.get("onerror") for image in page.images)


def test_images_that_are_not_there_are_said_to_be(tmp_path):
    folder = synthetic.sweep(tmp_path / "far", arms=synthetic.ARMS[1:2], seeds=[0], dataset="cifar10")
    page = Page(report(folder))
    assert "Images are not shown: where they lie is not told (--data_dir)." in page.text
    assert "Right cat" in page.text and not any(image.get("alt") for image in page.images)
    page = Page(report(folder, data_dir=str(tmp_path)))
    assert "Images are not shown: " in page.text and "Received: " in page.text


def test_images_that_are_others_are_not_shown(tmp_path):
    folder = synthetic.sweep(tmp_path / "other", arms=synthetic.ARMS[1:2], seeds=[0], labels=np.arange(50) % 10)
    assert "are not those that were judged" in Page(report(folder)).text


def test_branches_that_agree_on_everything_are_said_to(tmp_path):
    labels = np.arange(50) % 10
    folder = synthetic.sweep(tmp_path / "same", arms=synthetic.ARMS[1:2], seeds=[0], labels=labels)
    found = synthetic.outputs(labels, split_factor=4, skill=50)
    save_judged(folder / "judged" / "split_factor=4,seed=0.npz", {"test": judged(found)})
    page = Page(report(folder))
    assert "All branches answer alike to every image." in page.text and "No image is answered wrongly." in page.text


def test_a_large_image_is_made_small():
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    assert thumbnail(image).startswith("data:image/jpeg;base64,") and len(thumbnail(image)) < 20_000
    assert thumbnail(image[:8, :8]).startswith("data:image/png;base64,")
