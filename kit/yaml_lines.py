"""YAML as plan and secrets files use it: text, lists and mappings, each with the line it stands on.

Scalars stay the text they are (``22.10`` is a version, ``0012`` a serial number; the model makes numbers where it wants numbers); only
an empty value, ``~`` and ``null`` are None. No tags, no merge keys, and no message repeats a value: it may be a secret.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

Tree: TypeAlias = "str | list[Tree] | dict[str, Tree] | None"
Place: TypeAlias = tuple[str, ...]

TAG = "tag:yaml.org,2002:"
KNOWN_TAGS = {TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")}
MOST_NODES = 10_000  # aliases counted as often as they are used
DEEPEST = 20
# What a setting can be called. Another word may be a secret that slipped into the wrong place.
SETTING = re.compile(r"[a-z][a-z_]{0,30}")
QUOTES = re.compile(r"['\"]")


@dataclass(frozen=True)
class Fault:
    """What is wrong at a line, 1 the first."""

    line: int
    text: str


class FaultyYaml(ValueError):  # noqa: N818 - not an error of the tree: the caller makes one of it
    """The text cannot be taken; ``faults`` holds everything found."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("faulty YAML")
        self.faults = sorted(faults, key=lambda fault: fault.line)


@dataclass
class Document:
    """The values, and the line of each place in them. ``faults``: what could be passed over (keys that stand twice)."""

    tree: Tree = None
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def parse_yaml(text: str) -> Document:
    """One YAML document.

    Raises:
        FaultyYaml: it is no YAML, or uses what plans do not need.

    """
    document = Document()
    node = _compose(text)
    if node is not None:
        _Reader(document).read_into(node)
    return document


def render_key(key: str) -> str:
    """A key as messages may show it."""
    return key if SETTING.fullmatch(key) or key.isdigit() else "…"


def _compose(text: str) -> Node | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of anchors that are used twice, by name
            node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FaultyYaml([Fault(line, "a control character stands here")]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FaultyYaml([Fault(mark.line + 1 if mark else 1, _explain(error.problem or ""))]) from None
    except RecursionError:
        raise FaultyYaml([Fault(1, "it is nested too deeply")]) from None
    except (YAMLError, ValueError, IndexError, AssertionError) as error:
        raise FaultyYaml([Fault(1, f"it is not valid YAML ({type(error).__name__})")]) from None
    return node


def _explain(problem: str) -> str:
    """The parser's words without what it quotes from the file."""
    if "'\\t'" in problem:
        return "a tab stands where YAML wants spaces"
    if "alias" in problem:
        return "an alias (*) names nothing; text that begins with * needs quotes"
    if "another document" in problem:
        return "a second document begins here; a plan is one"
    if "cannot start any token" in problem:
        return "text that begins with this character needs quotes"
    return QUOTES.split(problem)[0].strip().rstrip(",") or "it is not valid YAML"


@dataclass
class _Reader:
    document: Document
    seen: int = 0

    def read_into(self, node: Node) -> None:
        self.document.tree = self._read(node, ())

    def _read(self, node: Node, place: Place) -> Tree:
        line = node.start_mark.line + 1
        self.seen += 1
        if self.seen > MOST_NODES:
            raise FaultyYaml([Fault(line, "it holds more values than a plan can have")])
        if len(place) > DEEPEST:
            raise FaultyYaml([Fault(line, "it is nested too deeply")])
        if str(node.tag) not in KNOWN_TAGS:
            self.document.faults.append(Fault(line, "a tag (!) has no meaning in a plan; text that begins with ! needs quotes"))
            return None
        if isinstance(node, MappingNode):
            return dict(self._read_pairs(node, place))
        if isinstance(node, SequenceNode):
            return [self._read_item(item, (*place, str(index))) for index, item in enumerate(node.value)]
        return None if str(node.tag) == TAG + "null" else str(node.value)

    def _read_item(self, node: Node, place: Place) -> Tree:
        self.document.lines[place] = node.start_mark.line + 1
        return self._read(node, place)

    def _read_pairs(self, node: MappingNode, place: Place) -> Iterator[tuple[str, Tree]]:
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode) or str(key.tag) not in KNOWN_TAGS:
                self.document.faults.append(Fault(line, "a setting's name must be a plain word"))
                continue
            name = str(key.value)
            if name in first:
                shown = ".".join(render_key(part) for part in (*place, name))
                self.document.faults.append(Fault(line, f"{shown}: stands twice, first in line {first[name]}"))
                continue
            first[name] = line
            self.document.lines[(*place, name)] = line
            yield name, self._read(value, (*place, name))
