"""Changes the pure cores in small ways and runs their tests: ``make mutants``.

mutmut makes the mutants and runs them, each module in a folder of its own under ``.mutants/``, with
the tests that ``tests/mutants.toml`` names for it. What was killed stays so until its function
changes; survivors are tried again in each run, so an interrupted run goes on where it was. It ends
with status 1 if a mutant survives that the file does not list as equivalent, with the reason, or
more than one in twenty does.
"""

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from tests.kits.examples import FULL

ROOT = Path(__file__).parent.parent
WORK = ROOT / ".mutants"
LIST = ROOT / "tests" / "mutants.toml"
MOST_SURVIVE = 0.05
_LINKED = {"tests", "training", "docs", "examples"}

# Of mutmut, for what a run of pytest ended with; whatever else it is, the mutant did harm.
_SURVIVED, _UNTESTED, _TIMEOUTS = {0}, {5, 33}, {24, 36, 152, 255, -24}
_OPTIONS = {
    "pytest_add_cli_args": ["--hypothesis-profile=mutants", "-p", "no:cacheprovider"],
    # What people read in logs is no behaviour that tests should pin word by word.
    "do_not_mutate_patterns": [r"\blog(ger)?\.(info|warning|error)\("],
    # Others work on this machine, too.
    "timeout_constant": 15.0,
    "timeout_multiplier": 4.0,
    "track_dependencies": False,
    "use_git_change_detection": False,
    "on_dependency_change": "ignore",
}


class Module(NamedTuple):
    """A module with its tests, and why those mutants of it that no test can kill are equivalent."""

    path: str
    tests: list[str]
    equivalent: dict[str, str]

    @property
    def room(self) -> str:
        return self.path.partition("/")[0]

    @property
    def folder(self) -> Path:
        return WORK / self.path.removesuffix(".py").replace("/", ".")

    @property
    def mutated(self) -> Path:
        return self.folder / "mutants" / "src" / "roadstream" / self.path

    @property
    def results(self) -> Path:
        return self.mutated.with_name(self.mutated.name + ".meta")


class Verdict(NamedTuple):
    """What became of a module's mutants: how many had which end, and which survive."""

    module: Module
    ends: Counter[str]
    survivors: list[str]

    @property
    def unlisted(self) -> list[str]:
        return [one for one in self.survivors if one not in self.module.equivalent]

    @property
    def share(self) -> float:
        return len(self.survivors) / max(1, self.ends.total())


def modules(wanted: Sequence[str]) -> list[Module]:
    """Read the list; of it, the modules that were asked for, by path or a part of it."""
    listed = tomllib.loads(LIST.read_text())
    found = [
        Module(path, about["tests"], dict(_reasons(about.get("equivalent", []))))
        for path, about in listed.items()
        if not wanted or any(word in path for word in wanted)
    ]
    if not found:
        raise SystemExit(f"expected some of {', '.join(listed)}, got {' '.join(wanted)}")
    return found


def _reasons(listed: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    return ((change, entry["reason"]) for entry in listed for change in entry["changes"])


def prepare(module: Module) -> None:
    """Lay out the folder in which mutmut works: its settings, and links to what is here."""
    module.folder.mkdir(parents=True, exist_ok=True)
    for path in ROOT.iterdir():
        link = module.folder / path.name
        if path.name in _LINKED and not link.exists():
            link.symlink_to(path)
    _lay_out_package(module)
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    own = {
        "source_paths": [f"src/roadstream/{module.room}"],
        "only_mutate": [f"src/roadstream/{module.path}"],
        "also_copy": ["src/roadstream/__init__.py"],
        "pytest_add_cli_args_test_selection": module.tests,
    }
    tools = {"mutmut": own | _OPTIONS, "pytest": {"ini_options": about}}
    (module.folder / "pyproject.toml").write_text(tomli_w.dumps({"tool": tools}))
    # Which test reaches which function is learnt anew, and survivors may be killed by now.
    (module.folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    if module.results.exists():
        known = json.loads(module.results.read_text())
        ends = known["exit_code_by_key"]
        known["exit_code_by_key"] = {
            name: None if end in _SURVIVED | _UNTESTED else end for name, end in ends.items()
        }
        module.results.write_text(json.dumps(known))


def _lay_out_package(module: Module) -> None:
    """Make a package of which mutmut copies and changes one room; the others are those here."""
    package = module.folder / "src" / "roadstream"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(f"__path__.append({str(ROOT / 'src' / 'roadstream')!r})\n")
    if not (room := package / module.room).exists():
        room.symlink_to(ROOT / module.room)


def run(module: Module, jobs: int) -> Verdict:
    """Run the mutants of a module that have no result yet.

    Raises:
        SystemExit: mutmut failed; what it said stands above.
    """
    prepare(module)
    mutmut = Path(sys.executable).with_name("mutmut")
    command = [str(mutmut), "run", "--max-children", str(jobs)]
    ended = subprocess.run(
        command, cwd=module.folder, capture_output=True, text=True, check=False,
        env=os.environ | {FULL: "full"},
    )  # fmt: skip
    verdict = judge(module) if ended.returncode == 0 else None
    if verdict is None or verdict.ends["not run"]:
        sys.stdout.write(ended.stdout[-4000:] + ended.stderr[-4000:])
        raise SystemExit(f"{module.path}: mutmut did not come to its end")
    return verdict


def judge(module: Module) -> Verdict:
    """Read what became of the mutants."""
    ends: dict[str, int | None] = json.loads(module.results.read_text())["exit_code_by_key"]
    changes = Changes(module)
    survivors = [changes.of(name) for name, end in ends.items() if end in _SURVIVED | _UNTESTED]
    return Verdict(module, Counter(map(_end, ends.values())), survivors)


def _end(code: int | None) -> str:
    if code is None:
        return "not run"
    if code in _SURVIVED | _UNTESTED:
        return "survived"
    return "timeout" if code in _TIMEOUTS else "killed"


class Changes:
    """Says in one line what a mutant changes; its number would change with every edit."""

    def __init__(self, module: Module) -> None:
        mutated = module.mutated
        self._lines = mutated.read_text().splitlines()
        self._spans = json.loads(mutated.with_name(mutated.name + ".spans").read_text())["spans"]

    def of(self, name: str) -> str:
        """Return ``Class.function: was → is``."""
        function = name.rpartition(".")[2].rpartition("__mutmut_")[0]
        diff = difflib.ndiff(self._source(f"{function}__mutmut_orig"), self._source(name))
        was, now = list[str](), list[str]()
        for line in list(diff):
            if line[:2] in ("- ", "+ "):
                (was if line[0] == "-" else now).append(line[2:].strip())
        shown = re.sub(r"^x_", "", function).removeprefix("xǁ").replace("ǁ", ".")
        return f"{shown}: {' '.join(was)} → {' '.join(now)}"

    def _source(self, name: str) -> list[str]:
        first, last = self._spans[name.rpartition(".")[2]]
        return [re.sub(r"__mutmut_\w+", "", line) for line in self._lines[first - 1 : last]]


def report(verdicts: Sequence[Verdict]) -> None:
    """Print the table, and the survivors that nobody has explained."""
    say = sys.stdout.write
    say(f"\n{'module':<32}{'mutants':>9}{'killed':>9}{'timeout':>9}{'survived':>10}{'new':>6}\n")
    for verdict in verdicts:
        ends, left = verdict.ends, len(verdict.unlisted)
        say(f"{verdict.module.path:<32}{ends.total():>9}{ends['killed']:>9}{ends['timeout']:>9}")
        say(f"{ends['survived']:>10}{left:>6}\n")
    for verdict in verdicts:
        for change in verdict.unlisted:
            say(f"\n{verdict.module.path}: survives: {change}")
        for change in verdict.module.equivalent:
            if change not in verdict.survivors:
                say(f"\n{verdict.module.path}: listed, and killed or gone: {change}")
    say("\n")


def main() -> None:
    """Run what the command line asks for; see the module."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="paths of modules, or parts of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", action="store_true", help="only show what was found before")
    options = parser.parse_args()
    chosen = modules(options.modules)
    if options.results:
        verdicts = [judge(module) for module in chosen if module.results.exists()]
    else:
        verdicts = [run(module, options.jobs) for module in chosen]
    report(verdicts)
    too_many = [verdict for verdict in verdicts if verdict.share > MOST_SURVIVE]
    if too_many or any(verdict.unlisted for verdict in verdicts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
