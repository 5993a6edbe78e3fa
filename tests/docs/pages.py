"""The pages of the documentation, and what stands in them: commands, code, links, anchors."""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
READ_OUTSIDE = (README, ROOT / "BUILD.md", ROOT / "CHANGELOG.md")
"""Pages that are read in the checkout, where mkdocs does not look."""

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^\n(?: {4}.*\n)(?:(?: {4}.*)?\n)*)", flags=re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: pathlib.Path
    language: str
    text: str

    @property
    def name(self) -> str:
        """Of a test's row: the page and the first line."""
        return f"{self.page.relative_to(ROOT)}: {self.text.partition(chr(10))[0]}"


def guides() -> list[pathlib.Path]:
    """README and all pages whose commands and code are for the reader to run."""
    return [README, *sorted(page for folder in ("guides", "configs", "api") for page in (DOCS / folder).glob("*.md"))]


def blocks(language: str, pages: Sequence[pathlib.Path] | None = None) -> list[Block]:
    """The fenced blocks of a language, in the order of the pages."""
    found = []
    for page in guides() if pages is None else pages:
        for name, text in _FENCE.findall(page.read_text(encoding="utf-8")):
            if name == language:
                found.append(Block(page, language, text))
    return found


def command_lines(pages: Sequence[pathlib.Path] | None = None) -> Iterator[str]:
    """Every line of a shell in ```sh blocks and in indented ones, with what a backslash continues."""
    for page in guides() if pages is None else pages:
        text = page.read_text(encoding="utf-8")
        shells = [block.text for block in blocks("sh", [page])]
        outside = _FENCE.sub("", text)
        shells += [re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in _INDENTED.findall(outside)]
        shells += [re.match(r"# \w+\.gin: (.*)", block.text)[1] for block in blocks("gin", [page])]
        for shell in shells:
            for line in re.sub(r"\\\n\s*", "", shell).splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    yield line.strip()


def links(page: pathlib.Path) -> list[str]:
    """Where the page's links and pictures lead."""
    return re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: pathlib.Path) -> set[str]:
    """What a link into the page may name: its headings as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def config_names(page: pathlib.Path) -> set[str]:
    """The shipped configs that a page calls by their names, braces and patterns left out."""
    families = "|".join(sorted(folder.name for folder in (ROOT / "gin").iterdir() if folder.is_dir()))
    return set(re.findall(rf"(?:{families})/\w+_split\d\w*(?![\w{{*.])", page.read_text(encoding="utf-8")))


def commands_with_outputs(page: pathlib.Path) -> list[tuple[str, str]]:
    """Each block of commands that has a block of text behind it, and that text."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    pairs = itertools.pairwise(found)
    return [(first[1], second[1]) for first, second in pairs if first[0] == "sh" and second[0] in ("text", "console")]
