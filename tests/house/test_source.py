"""Size, words and habits of the source."""

from __future__ import annotations

import ast
import configparser
import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from source_tree import ROOT, Module, modules, read_text, tracked_files

pytestmark = pytest.mark.process  # git lists the files

MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_KIT = 900

# What is longer than it should be, by path or by path::function, and why that is better than cutting it.
MAY_BE_LONG: dict[str, str] = {}

# Words that name nothing. path::name patterns that may have them, and why.
EMPTY_WORDS = {"manager", "helper", "helpers", "util", "utils"}
EMPTY_VERBS = ("get", "handle", "process")
MAY_BE_NAMED: dict[str, str] = {}

# Text that tells of this machine or of a workplace instead of the project. Cut in two, so that this file does not hold them.
FOREIGN = [
    "/wo" + "rk/",
    "/opt/py" + "pi",
    "/opt/whe" + "els",
    "py" + "pi.org",
    "python" + "hosted",
    "--index" + "-url",
    "--extra-index" + "-url",
    "--trusted" + "-host",
    "--find" + "-links",
    "sha" + "red/design",
    "sha" + "red/domain",
    ".lib" + "rary/",
    "farm" + "-",
    "/tmp/br" + "ief",
    "issues sh" + "ow",
]
MAY_NAME: dict[tuple[str, str], str] = {}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK|WI" + r"P)\b")


def functions_of(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    long = [f"{module.path} {lines}" for module in modules() if (lines := len(module.text.splitlines())) > MOST_LINES]
    assert [text for text in long if text.partition(" ")[0] not in MAY_BE_LONG] == []


def test_no_test_file_is_longer_than_four_hundred_lines() -> None:
    texts = {name: read_text(name) or "" for name in tracked_files() if name.startswith("tests/") and name.endswith(".py")}
    long = [f"{name} {lines}" for name, text in texts.items() if (lines := len(text.splitlines())) > MOST_LINES]
    assert [text for text in long if text.partition(" ")[0] not in MAY_BE_LONG] == []


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = [
        f"{module.path}::{node.name} {node.end_lineno - node.lineno + 1}"
        for module in modules()
        for node in functions_of(module)
        if node.end_lineno is not None and node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION
    ]
    assert [text for text in long if text.partition(" ")[0] not in MAY_BE_LONG] == []


def test_the_ground_floor_stays_small() -> None:
    assert sum(len(module.text.splitlines()) for module in modules() if module.package == "kit") < MOST_LINES_OF_KIT


def test_nothing_unfinished_is_left() -> None:
    found = [
        f"{name}:{number} {line.strip()}"
        for name in tracked_files()
        for number, line in enumerate((read_text(name) or "").splitlines(), 1)
        if UNFINISHED.search(line) and not name.startswith("tests/data/")
    ]
    assert found == []


def test_nothing_is_declared_and_left_out() -> None:
    found = [
        f"{module.path}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Raise) and "NotImplemented" in ast.unparse(node)
    ]
    assert found == []


def swallows(handler: ast.ExceptHandler) -> bool:
    caught = ast.unparse(handler.type) if handler.type is not None else ""
    empty = all(
        isinstance(part, ast.Pass | ast.Continue) or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for part in handler.body
    )
    return empty and bool(re.search(r"\b(Base)?Exception\b", caught))


def test_no_error_is_swallowed() -> None:
    found = []
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler) and (node.type is None or swallows(node)):
                found.append(f"{module.path}:{node.lineno}")
            if isinstance(node, ast.Call) and re.search(r"\bsuppress$", ast.unparse(node.func)):
                found += [f"{module.path}:{node.lineno}" for word in node.args if re.fullmatch(r"(Base)?Exception", ast.unparse(word))]
    assert found == []


def words_of(name: str) -> list[str]:
    """``SnapshotManager`` and ``snapshot_manager`` as their words."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def names_nothing(name: str) -> bool:
    words = words_of(name)
    return bool(EMPTY_WORDS & set(words)) or (len(words) > 1 and words[0] in EMPTY_VERBS)


def test_names_say_what_for() -> None:
    found = [
        f"{module.path}::{node.name}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and names_nothing(node.name)
    ]
    found += [module.path for module in modules() if EMPTY_WORDS & set(words_of(Path(module.path).stem))]
    assert [place for place in found if not any(fnmatch.fnmatch(place, pattern) for pattern in MAY_BE_NAMED)] == []


@pytest.mark.parametrize(
    ("name", "empty"), [("get_facts", True), ("_handle", False), ("SiteManager", True), ("processes", False), ("target", False)]
)
def test_the_rule_about_names_knows_what_it_looks_for(name: str, empty: bool) -> None:
    assert names_nothing(name) == empty


def hosts_of_this_machine() -> Iterator[str]:
    """Where this machine gets its Python packages from, as far as its configuration tells."""
    for path in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(path)
        for section in parser.sections():
            for key, value in parser.items(section):
                if key in {"index-url", "extra-index-url", "find-links", "trusted-host"}:
                    yield from (urlsplit(word).hostname or urlsplit(word).path for word in value.split())


def test_nothing_tells_of_the_machine_it_was_written_on() -> None:
    wanted = {*FOREIGN, *hosts_of_this_machine()} - {"", "/"}
    if len(ROOT.parts) > 2:
        wanted.add(f"{ROOT}/")
    found = [
        f"{name}:{number} {word}"
        for name in tracked_files()
        for number, line in enumerate((read_text(name) or "").splitlines(), 1)
        for word in wanted
        if word in line and (name, word) not in MAY_NAME
    ]
    assert found == []


def test_what_a_linter_is_told_to_ignore_has_its_reason() -> None:
    """``# noqa: X - why``; naked or blanket ignores hide the next fault too."""
    found = [
        f"{module.path}:{number} {line.strip()}"
        for module in modules()
        for number, line in enumerate(module.text.splitlines(), 1)
        if re.search(r"#\s*noqa(?!: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)* - \S)", line) or re.search(r"#\s*type:\s*ignore(?!\[)", line)
    ]
    assert found == []


def test_exceptions_are_listed_with_a_reason_and_only_while_they_are_needed() -> None:
    for reason in [*MAY_BE_LONG.values(), *MAY_BE_NAMED.values(), *MAY_NAME.values()]:
        assert reason
    known = {module.path for module in modules()} | {name for name in tracked_files() if name.startswith("tests/")}
    assert [name for name in MAY_BE_LONG if name.partition("::")[0] not in known] == []


def runs_on(script: str) -> bool:
    """True for a shell script of more than one command that would go on after a failure."""
    first, *rest = script.splitlines()
    commands = [line for line in rest if line.strip() and not line.startswith("#")]
    return bool(re.match(r"#!.*\b(ba)?sh\b", first)) and len(commands) > 1 and not any(line.startswith("set -e") for line in commands)


def test_every_shell_script_stops_at_the_first_error() -> None:
    scripts = {name: text for name in tracked_files() if (text := read_text(name) or "").startswith("#!")}
    assert "scripts/setup" in scripts
    assert [name for name, text in scripts.items() if runs_on(text)] == []
