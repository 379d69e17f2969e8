"""The reference pages of the site: from the commands, the JSON Schemas, docstrings and errors.

They are made anew by each `make docs`, and are not in the repository: there, `roadstream --help`,
`roadstream schema` and the code say the same.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import roadstream
from roadstream.schemas import errors
from roadstream.schemas.codec import SCHEMAS, json_schema
from roadstream.schemas.engines import EngineTraits
from roadstream.schemas.records.votes import Evidence
from roadstream.sinks.sink import AnswerSink
from roadstream.stages.batching.policy import BatchPolicy, Moment, ShapeQueue, Take
from roadstream.stages.inference import Abstained, DepthMap, Engine, Picture, Pictures, Score
from roadstream.streams.sources.source import Item, PayloadReader, Source, SourceOptions
from roadstream.workers.cli import app
from roadstream.workers.engines.options import EngineOptions

Schema = dict[str, Any]
PORTS: dict[str, list[type]] = {
    "Engines and rules": [
        *(Engine, EngineTraits, EngineOptions, Pictures, Picture, Evidence),
        *(Score, Abstained, DepthMap),
    ],
    "Sources": [Source, Item, SourceOptions, PayloadReader],
    "Sinks": [AnswerSink],
    "Batching policies": [BatchPolicy, Moment, ShapeQueue, Take],
}
RECORDS = ("image", "escalation", "votes", "answer", "dead-letter")
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
_ENTRY = re.compile(r"^ {4}(\*{0,2}\w[\w., ]*): (.*)")
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "minItems": "at least {}",
    "maxItems": "at most {}",
}


def pages() -> dict[str, str]:
    """Return the Markdown of each page, by where it stands on the site."""
    cascade = [name for name in SCHEMAS if name not in RECORDS]
    return {
        "reference/commands.md": commands(),
        "reference/fields.md": "# Fields of the records\n\n" + schemas(RECORDS),
        "reference/cascade.md": "# Keys of the cascade file\n\n" + schemas(cascade),
        "reference/python.md": "# Python API\n\n" + python(),
        "reference/ports.md": ports(),
        "reference/errors.md": error_tree(),
    }


def commands() -> str:
    """Return what `--help` of every command says."""
    for name in app:
        if name[0] != "-" and app[name].default_command:
            app[name].help = None  # all that its function says, not its line in the list
    text = app.generate_docs().replace("# roadstream\n", "# Commands\n", 1)
    contents = re.compile(r"## Table of Contents\n.*?(?=\*\*Commands\*\*)", re.DOTALL)
    return contents.sub("", text).replace(" *[default: False]*", "")


def schemas(names: Iterable[str]) -> str:
    """Return tables of all types that schemas name, each once, by schema."""
    seen: set[str] = set()
    parts: list[str] = []
    for name in names:
        schema = json.loads(json_schema(name))
        parts.append(f"## `roadstream schema {name}`\n")
        for title, kind in schema.get("$defs", {}).items():
            if title not in seen:
                seen.add(title)
                parts.append(_table(title, kind))
    return "\n".join(parts)


def _table(title: str, kind: Schema) -> str:
    """Return the table of a type's fields."""
    prose, told = _split(kind.get("description", ""))
    listed = kind.get("prefixItems", ())  # a record that is an array on the log
    names = [*told, *map(str, range(len(told), len(listed)))]
    fields = kind.get("properties") or dict(zip(names, listed, strict=False))
    rows = [
        f"| `{name}` | {_type(field)} | {_default(field)} | {told.get(name, '')} |"
        for name, field in fields.items()
    ]
    head = ["| field | type | default | what |", "|---|---|---|---|"] if rows else []
    return "\n".join([f"### {title}\n", prose, "", *head, *rows, ""])


def _default(field: Schema) -> str:
    return f"`{json.dumps(field['default'], ensure_ascii=False)}`" if "default" in field else ""


def _type(field: Schema) -> str:
    """Return what a field takes, in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    bounds = [text.format(field[key]) for key, text in _BOUNDS.items() if key in field]
    kind = str(field.get("type", "anything"))
    if isinstance(field.get("items"), dict):
        kind += f" of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        kind += f" of {_type(field['additionalProperties'])}"
    kind = "bytes" if "contentEncoding" in field else kind
    return f"{kind} ({', '.join(bounds)})" if bounds else kind


def _split(docstring: str) -> tuple[str, dict[str, str]]:
    """Return a docstring's prose, and its attributes with what is said of each, in one line."""
    prose, _, attributes = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    told: dict[str, str] = {}
    name = ""
    for line in attributes.splitlines():
        if entry := _ENTRY.match(line):
            name, told[entry[1]] = entry[1], entry[2]
        elif name:
            told[name] = f"{told[name]} {line.strip()}".strip()
    return _marked(prose), {key: _marked(text).replace("|", "\\|") for key, text in told.items()}


def python() -> str:
    """Return what the docstrings of the public API say."""
    found = {name: getattr(roadstream, name) for name in roadstream.__all__}
    parts = [
        _described(name, each)
        for name, each in found.items()
        if inspect.isroutine(each) or inspect.isclass(each)
    ]
    return "\n".join([f"```python\n{_example()}\n```\n", *parts])


def _example() -> str:
    example = (roadstream.__doc__ or "").partition("::\n")[2].partition("\nEverything")[0]
    return inspect.cleandoc(example)


def ports() -> str:
    """Return what the docstrings of everything say that others may implement."""
    parts = ["# Ports\n\nWhat packages of yours implement, and what these are given.\n"]
    for title, classes in PORTS.items():
        parts += [f"## {title}\n", *(_described(each.__name__, each, "###") for each in classes)]
    return "\n".join(parts)


def _described(name: str, what: Any, heading: str = "##") -> str:
    """Return a class with its public methods, or a function."""
    where = getattr(what, "__module__", "roadstream")
    parts = [f"{heading} {name}\n", f"`{where}`\n", _body(name, what)]
    if inspect.isclass(what) and not issubclass(what, Exception):
        parts += [
            f"{heading}# `{name}.{key}`\n\n{_body(key, method)}" for key, method in _methods(what)
        ]
    return "\n".join(parts)


def _methods(what: type) -> Iterator[tuple[str, Callable[..., object]]]:
    for key, value in vars(what).items():
        public = not key.startswith("_") or key == "__call__"
        if public and inspect.isfunction(value) and value.__doc__:
            yield key, value


def _body(name: str, what: Any) -> str:
    signature = ""
    if inspect.isfunction(what):
        signature = f"```python\n{name}{_signature(what)}\n```\n\n"
    return signature + _google(inspect.getdoc(what) or "")


def _signature(what: Callable[..., object]) -> str:
    """Return a function's signature without the modules of types."""
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)|: \*<class .*?>|~", "", str(inspect.signature(what)))
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def _google(docstring: str) -> str:
    """Return a docstring with its sections as lists."""
    lines: list[str] = []
    section = False
    for line in docstring.splitlines():
        if found := _SECTION.match(line):
            section = True
            lines += [f"**{found[1]}**", ""]
        elif section and (entry := _ENTRY.match(line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append(line[4:] if section and line.startswith("    ") else line)
    return _marked("\n".join(lines)) + "\n"


def _marked(text: str) -> str:
    """Return a docstring's text as Markdown."""
    return re.sub(r"::$", ":", text.replace("``", "`"), flags=re.MULTILINE)


def error_tree() -> str:
    """Return every error that is raised on purpose, with its exit status."""
    rows = [
        f"| {'· ' * depth}`{error.__name__}` | {error.exit_status} "
        f"| {'yes' if error.retriable else ''} | {_marked(_first_line(error))} |"
        for depth, error in _errors(errors.RoadstreamError)
    ]
    faults = ", ".join(f"`{fault}`" for fault in get_args(errors.ImageFault))
    return "\n".join(
        [
            "# Errors\n",
            "All are in `roadstream.schemas.errors`; a dot stands for a step down the tree.\n",
            "| error | exit status | may pass | what |\n|---|---|---|---|",
            *rows,
            f"\nFaults of an `ImageError`, with which `error` begins: {faults}.\n",
        ]
    )


def _first_line(error: type) -> str:
    return (inspect.getdoc(error) or "").partition("\n")[0].replace("|", "\\|")


def _errors(root: type[errors.RoadstreamError], depth: int = 0) -> Iterator[tuple[int, Any]]:
    yield depth, root
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__:
            yield from _errors(error, depth + 1)
