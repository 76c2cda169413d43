"""The page about states and errors, from the code and from failure_words.yaml. Called by scripts/failures-reference."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ruamel.yaml import YAML

import certs
import images
import kit
import migrate
from kit.errors import BoxshiftError, walk_tree
from migrate.cli.say import exit_code
from migrate.engine.model import NodeState, RunState, UndoState

OURS = (kit, certs, images, migrate)
KINDS = ("usage", "refused", "failed", "changed", "waiting")
# Errors of these never reach an operator of a migration through a run.
LEFT_OUT = {"lookup-failed": "the demo's visitors catch it themselves"}

HEAD = """\
# States and errors: what happened, and what to do

<!-- Written by scripts/failures-reference from the code and scripts/failure_words.yaml; do not edit by hand. -->

`boxshift status PLAN` names the state of the run, the state of each node, and how far each undo has come. A failed node has an error
with a code; `status --json` and the report show it. This page has every word and every code that can stand there.

Four rules hold in every state:

* The old box is not reset before its gate is approved and every condition of that gate has been looked at again.
* A step that finished is not run again. A step that was cut off looks at the box before it acts.
* What could not be read back is not taken for done.
* Until the factory reset begins, `boxshift rollback` leads back to the old box. It says first what it will undo and how long that takes.
"""


@dataclass(frozen=True)
class Words:
    """What a state or an error means for the boxes, and what a person does."""

    boxes: str
    do: str


def render_reference() -> str:
    """The whole page."""
    load_everything()
    words = read_words()
    parts = [
        HEAD,
        f"## The run\n\n{render_states(RunState, words['runs'])}",
        f"## A node\n\n{render_states(NodeState, words['nodes'])}",
        "## The undo of a node\n\nShown under the node once a rollback has begun.\n\n" + render_states(UndoState, words["undo"]),
        "## Errors\n\nBy the kind that decides the exit code. A code without a line of its own words has those of its kind.\n",
        *render_errors(words["errors"]),
    ]
    return "\n".join(parts)


def load_everything() -> None:
    """Import every module, so that the error tree is whole."""
    for package in OURS:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(".__main__") and not found.name.startswith("images.reference"):
                importlib.import_module(found.name)


def read_words() -> dict[str, dict[str, Words]]:
    """The words of each section by name."""
    raw = YAML(typ="safe").load(Path(__file__).with_name("failure_words.yaml"))
    return {section: {name: Words(**entry) for name, entry in entries.items()} for section, entries in raw.items()}


def render_states(states: type[StrEnum], words: dict[str, Words]) -> str:
    """One line for each state; every state has its words, and no word is of a state that is none."""
    named = {state.value for state in states}
    if named != set(words):
        raise SystemExit(f"{states.__name__}: words and states differ in {sorted(named ^ set(words))}; see scripts/failure_words.yaml.")
    rows = [f"| {state.value} | {words[state.value].boxes} | {words[state.value].do} |" for state in states]
    return "\n".join(["| state | the boxes | what to do |", "| --- | --- | --- |", *rows]) + "\n"


def render_errors(words: dict[str, Words]) -> Iterator[str]:
    """A table for each kind, ours and the five of the tree."""
    ours = [kind for kind in walk_tree() if kind.__module__.partition(".")[0] in {package.__name__ for package in OURS}]
    kinds = {kind.code: kind for kind in sorted(ours, key=lineage)}
    unknown = set(words) - set(kinds)
    if unknown:
        raise SystemExit(f"There are no such errors: {sorted(unknown)}; see scripts/failure_words.yaml.")
    for code in KINDS:
        yield render_kind(kinds[code], [kind for kind in kinds.values() if issubclass(kind, kinds[code])], words)
    rest = [kind for kind in kinds.values() if not any(issubclass(kind, kinds[code]) for code in KINDS)]
    yield "### Faults of boxshift itself (exit 70)\n\n" + render_table(rest, words)


def lineage(kind: type[BoxshiftError]) -> tuple[str, ...]:
    """The codes from the root down to it. Which module was loaded first must not decide the order of the page."""
    return tuple(reversed([one.code for one in kind.__mro__ if issubclass(one, BoxshiftError)]))


def render_kind(kind: type[BoxshiftError], leaves: list[type[BoxshiftError]], words: dict[str, Words]) -> str:
    """The heading of a kind and its errors, the kind itself first."""
    return f"### `{kind.code}` (exit {exit_code(kind('x'))})\n\n" + render_table(leaves, words)


def render_table(errors: list[type[BoxshiftError]], words: dict[str, Words]) -> str:
    """One line for each code."""
    rows = [render_row(error, words) for error in errors if error.code not in LEFT_OUT]
    return "\n".join(["| code | what happened | the boxes | what to do |", "| --- | --- | --- | --- |", *rows]) + "\n"


def render_row(error: type[BoxshiftError], words: dict[str, Words]) -> str:
    """Its own words, or a pointer to those of its nearest kind."""
    happened = to_markdown((error.__doc__ or "").strip().split("\n\n")[0])
    if error.code in words:
        own = words[error.code]
        return f"| `{error.code}` | {happened} | {own.boxes} | {own.do} |"
    kind = next(kind.code for kind in error.__mro__[1:] if issubclass(kind, BoxshiftError) and kind.code in words)
    return f"| `{error.code}` | {happened} | as `{kind}` | as `{kind}` |"


def to_markdown(text: str) -> str:
    """A docstring's sentence in one line of a table."""
    return re.sub(r"\s+", " ", text.replace("``", "`").replace("|", "\\|"))


if __name__ == "__main__":
    sys.stdout.write(render_reference())
