"""The site in a browser, on a desk and on a telephone: nothing is missing, nothing complains, and the search finds."""

import contextlib
import functools
import http.server
import pathlib
import threading

import pytest

from tests.analysis.report.chromium import CHROMIUM, tab
from tests.docs import pages
from tests.docs.site import built_site

pytest.importorskip("mkdocs", reason="the extra docs is not installed: pip install -e .[docs]")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is not installed")

HIDDEN = """
[...document.querySelectorAll("article img")].filter((each) => {
  const box = each.getBoundingClientRect();
  return box.width < 20 || box.height < 20 || !each.naturalWidth;
}).map((each) => each.outerHTML.slice(0, 200))
"""
LEADS_NOWHERE = """
[...document.querySelectorAll("a[href]")].filter((each) => {
  const target = new URL(each.href);
  const here = target.href.split("#")[0] == location.href.split("#")[0];
  return here && target.hash.length > 1 && !document.getElementById(decodeURIComponent(target.hash.slice(1)));
}).map((each) => each.href)
"""
FOUND = """
new Promise((resolve) => {
  const field = document.querySelector("[data-md-component=search-query]");
  field.focus();
  field.value = "calibration";
  field.dispatchEvent(new Event("keyup", {bubbles: true}));
  field.dispatchEvent(new Event("input", {bubbles: true}));
  const look = () => {
    const found = document.querySelectorAll(".md-search-result__item").length;
    found ? resolve(found) : setTimeout(look, 100);
  };
  look();
})
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return built_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with tab(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@contextlib.contextmanager
def served(folder: pathlib.Path):
    """The address of a server of this computer's for the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", [page.relative_to(pages.DOCS) for page in sorted(pages.DOCS.rglob("*.md"))], ids=str)
def test_a_page_is_whole(browser, site, page, width):
    browser.told.clear()
    browser.open(site / page.with_suffix(".html"), width=width)
    assert browser.told == []  # no error, nothing asked of a network
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(HIDDEN) == [] and browser.value(LEADS_NOWHERE) == []


def test_the_search_finds_what_stands_on_a_page(browser, site):
    with served(site) as address:  # a browser lets no page of a folder start a worker
        browser.open_url(f"{address}index.html", width=1280)
        assert browser.value(FOUND) > 0
