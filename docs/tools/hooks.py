"""Hooks of mkdocs: the reference, and what pages link to outside of ``docs/``, become pages.

``docs/`` is read on GitHub too, where ``../CONTRIBUTING.md`` and ``../../examples/own_rule`` lead
to what they name. On the site all of that stands under ``repository/``: Markdown as it is, and any
other file, or the files of a folder, shown on a page.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from docs.tools import reference  # noqa: E402 (mkdocs runs this file by itself)

_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)[^()\s#]+")
_LANGUAGES = {".mjs": "js", ".py": "python", ".toml": "toml", ".yml": "yaml"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the reference, and a page for what pages lead to outside of ``docs/``."""
    todo = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    for uri, content in reference.pages().items():
        files.append(File.generated(config, uri, content=content))
    while todo:
        for path in _linked(todo.pop()):
            uri = _uri(path)
            if not path.startswith("docs/") and files.get_file_from_path(uri) is None:
                shown = InclusionLevel.NOT_IN_NAV  # no harm if it is
                files.append(File.generated(config, uri, content=_shown(path), inclusion=shown))
                todo.append(path)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a page lead to where things stand on the site."""
    del config, files
    uri = page.file.src_uri
    origin = uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"

    def on_site(target: str) -> str:
        return relpath(_uri(_named(origin, target)), dirname(uri) or ".")

    return _with_links(markdown, on_site) if (ROOT / origin).suffix == ".md" else markdown


def _linked(origin: str) -> list[str]:
    """Return the files and folders of the repository that one of its pages leads to."""
    found: list[str] = []

    def note(target: str) -> str:
        found.append(_named(origin, target))
        return target

    if origin.endswith(".md"):
        _with_links((ROOT / origin).read_text("utf-8"), note)
    return found


def _with_links(markdown: str, replace: Callable[[str], str]) -> str:
    """Replace the targets of links to this repository, code aside."""
    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: replace(found[0]), part) for part in parts[::2]]
    return "".join(parts)


def _named(origin: str, target: str) -> str:
    """Return the path, from the repository's root, of what a page's link names."""
    return normpath(join(dirname(origin), target))


def _uri(path: str) -> str:
    """Return where a file or folder of the repository stands on the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" if path.endswith(".md") else f"repository/{path}.md"


def _shown(path: str) -> str:
    """Return a page that shows a file, or the files of a folder."""
    there = ROOT / path
    if path.endswith(".md"):
        return there.read_text("utf-8")
    files = sorted(there.iterdir()) if there.is_dir() else [there]
    shown = [_file(file) for file in files if file.is_file()]
    return "\n".join([f"# {path}\n", *shown])


def _file(file: Path) -> str:
    language = _LANGUAGES.get(file.suffix, "text")
    return f"## {file.name}\n\n~~~~~~{language}\n{file.read_text('utf-8')}~~~~~~\n"
