"""The page in a browser: on a desk and on a telephone, light and dark."""

import pytest

from divco_tf.analysis.report.page import report
from tests.analysis.report import synthetic
from tests.analysis.report.chromium import CHROMIUM, tab

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is not installed")

HIDDEN = """
document.querySelectorAll("details").forEach((each) => { each.open = true; });
[...document.querySelectorAll("figure svg, img")].filter((each) => {
  const box = each.getBoundingClientRect();
  return box.width < 20 || box.height < 20 || (each.tagName == "IMG" && !each.naturalWidth);
}).map((each) => each.outerHTML.slice(0, 200))
"""
OUTSIDE = """
[...document.querySelectorAll("figure svg text")].filter((each) => {
  const box = each.getBoundingClientRect(), frame = each.ownerSVGElement.parentElement.getBoundingClientRect();
  return box.left < frame.left || box.right > frame.right;
}).map((each) => each.textContent)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweeps")
    arms = (*synthetic.ARMS, {"split_factor": 2, "optimizer.a_setting_with_a_long_name": "and_a_value_as_long_as_that"})
    folder = synthetic.sweep(
        place / "grown", arms=arms, seeds=range(2), amounts=(500, 2000), curve=3, failures=[{"split_factor": 3}]
    )
    long = {"baseline": "S=2, a_setting_with_a_long_name=and_a_value_as_long_as_that"}
    (place / "page.html").write_text(report(folder, **long, command="divco-report " + "a-folder-with-a-long-name/" * 8))
    return place / "page.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with tab(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_all_pictures_are_seen_and_nothing_lies_beside_the_screen(browser, page, width, dark):
    browser.told.clear()
    browser.open(page, width=width, dark=dark)
    assert browser.value(HIDDEN) == []
    inner, wide = browser.value("[innerWidth, document.documentElement.scrollWidth]")
    assert inner == width and wide <= width
    assert browser.value(OUTSIDE) == []
    assert browser.told == []


def test_a_dark_screen_has_a_dark_page(browser, page):
    colours = []
    for dark in (False, True):
        browser.open(page, width=390, dark=dark)
        colours.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]


def test_it_can_be_printed(browser, page, tmp_path):
    browser.open(page, width=1280)
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert browser.value("[...document.querySelectorAll('details')].every((each) => each.open)")


def test_an_error_of_a_page_would_be_noticed(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<script>nothing.there</script><img src='http://localhost:9/x.png'>")
    browser.told.clear()
    browser.open(tmp_path / "bad.html", width=390)
    assert len(browser.told) >= 2
    browser.told.clear()
