"""The site that `make docs` builds: strict, with every page, and nothing on it from elsewhere."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
_LOADED = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="?([^"\s>]+)|<link\b[^>]*\bhref="?([^"\s>]+)'
)
_LINK = re.compile(r'<a\b[^>]*\bhref="([^"#]*)(?:#([^"]*))?"')


def build(root: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make docs` does, from a copy of this repository."""
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(into)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    done = build(ROOT, into)
    assert done.returncode == 0, done.stderr
    return into


def html(site: Path) -> Iterator[tuple[Path, str]]:
    for page in sorted(site.rglob("*.html")):
        yield page, page.read_text()


def test_every_page_of_the_documents_is_on_it(site: Path) -> None:
    assert [page for page in PAGES if not (site / page.with_suffix(".html")).exists()] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loaded = {found[1] or found[2] for _, text in html(site) for found in _LOADED.finditer(text)}
    assert len(loaded) > 5
    assert [url for url in loaded if re.match(r"[a-z]+:(?!image)|//", url)] == []


def test_every_link_on_it_leads_to_a_file_and_a_place_that_are_there(site: Path) -> None:
    pages = dict(html(site))
    seen = 0
    for page, text in pages.items():
        for url, anchor in _LINK.findall(text):
            if re.match(r"[a-z]+:", url) or page.name == "404.html":
                continue
            there = (page.parent / unquote(url)).resolve() if url not in {"", "."} else page
            assert there.exists(), (page.name, url)
            if anchor and there in pages:
                seen += 1
                assert f'id="{unquote(anchor)}"' in pages[there], (page.name, url, anchor)
    assert seen > 100


@pytest.mark.parametrize(
    ("page", "text", "said"),
    [
        ("index.md", "[there](quickstart.md#nowhere)", "does not contain an anchor '#nowhere'"),
        ("index.md", "[there](nowhere.md)", "but the target is not found"),
        ("new.md", "# New", 'not included in the "nav" configuration'),
    ],
)
def test_what_leads_nowhere_and_a_page_that_nothing_leads_to_fail(
    page: str, text: str, said: str, tmp_path: Path
) -> None:
    for name in ROOT.iterdir():
        if name.name != "docs":
            (tmp_path / name.name).symlink_to(name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / page).open("a") as changed:
        changed.write(f"\n{text}\n")

    done = build(tmp_path, tmp_path / "built")

    assert done.returncode == 1
    assert said in done.stderr
