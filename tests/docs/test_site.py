"""The site builds without a warning, so links and anchors in docs/ resolve; those of other pages are followed here."""

import re
import subprocess
import sys
import tomllib

import pytest

import divco_tf
from divco_tf.tools.reports import config_pages
from tests.docs import pages
from tests.docs.site import built_site

pytest.importorskip("mkdocs", reason="the extra docs is not installed: pip install -e .[docs]")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return built_site(tmp_path_factory.mktemp("site"))


def test_it_builds_without_a_warning(site):
    assert (site / "index.html").is_file()


def test_it_has_every_page_and_every_public_name(site):
    for page in pages.DOCS.rglob("*.md"):
        assert (site / page.relative_to(pages.DOCS)).with_suffix(".html").is_file(), page
    written = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    for name in divco_tf.__all__:
        assert written.count(f'<h2 id="divco_tf.{name}"') == 1, name


def test_every_public_name_stands_in_the_table_of_names():
    listed = re.findall(r"\[(\w+)\]\(\w+\.md#divco_tf\.\1\)", (pages.DOCS / "api" / "index.md").read_text())
    assert sorted(listed) == divco_tf.__all__


def test_a_page_loads_nothing_from_the_network(site):
    loaded = re.compile(r'<(?:script|img|iframe|source)[^>]+src="?(?:https?:)?//|<link[^>]+stylesheet[^>]+//|@import')
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text()), page


def test_a_broken_link_would_be_noticed(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A page\n\n[nowhere](nowhere.md) [no heading](#nowhere)\n")
    text = (pages.ROOT / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(text.partition("nav:\n  - Home")[0])
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 1 and process.stderr.count("nowhere") >= 2, process.stderr


@pytest.mark.parametrize("page", pages.READ_OUTSIDE, ids=lambda page: page.name)
def test_links_of_pages_outside_the_site_lead_somewhere(page):
    for link in pages.links(page):
        if not re.match(r"https?://", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in pages.anchors(target), f"{page.name}: {link}"


def test_what_is_to_be_cited_is_this_version():
    import yaml  # mkdocs brings it

    cited = yaml.safe_load((pages.ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert f"## {project['version']} (" in (pages.ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("family", config_pages.families())
def test_pages_of_configs_are_current(family):
    text = (config_pages.PAGES / f"{family}.md").read_text(encoding="utf-8")
    assert text == config_pages.current(family), "python -m tools.reports.config_pages writes it"


def test_every_published_row_stands_on_a_page_with_its_figures():
    text = "".join(page.read_text() for page in config_pages.PAGES.glob("*.md"))
    for row in config_pages.paper_tables()["rows"]:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{row['config']}` |"))
        accuracy = row["top1_error"] if "top1_error" in row else f"{row['top1']} / {row['top5']}"
        assert line.endswith(f"| {accuracy} | {row['mparams']} | {row['gmacs']} |")
