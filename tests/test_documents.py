"""Documents lead where they say: links, anchors, paths, make targets; every page is listed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ARCHITECTURE = DOCS / "architecture.md"
README, INDEX = ROOT / "README.md", DOCS / "index.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
# Of these the links alone are looked at: the words say what was.
OLD = [ROOT / "CHANGELOG.md", ROOT / "training/README.md", ROOT / "training/MODEL_CARD.md"]
MOST_WORDS = 700
_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z]+:")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"<\w+>|(?<=-)[A-Z]+")
_ROOMS = "schemas|streams|stages|sinks|workers|cascades|training|bench|tests|examples"


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links, but those to other hosts."""
    prose = _CODE.sub("", _BLOCK.sub("", page.read_text()))
    return (target for target in _LINK.findall(prose) if not _ELSEWHERE.match(target))


def anchors(page: Path) -> set[str]:
    """Return what GitHub calls a page's headings."""
    found: dict[str, int] = {}
    for heading in _HEADING.findall(_BLOCK.sub("", page.read_text())):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{n}" if n else slug for slug, last in found.items() for n in range(last + 1)}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES + OLD, ids=name_of)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in links(page):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), target


def test_readme_is_short() -> None:
    assert len(README.read_text().split()) <= MOST_WORDS


def test_index_lists_every_page() -> None:
    listed = {(DOCS / target).resolve() for target in links(INDEX)}

    assert {page.resolve() for page in PAGES if page not in {INDEX, README}} <= listed


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_that_are_named_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE)

    assert set(named) <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(rf"`((?:{_ROOMS})/[^`\s]*)`", page.read_text())

    assert len(named) > 50 or page != ARCHITECTURE
    assert [path for path in named if not any(ROOT.glob(_PLACEHOLDER.sub("*", path)))] == []
