"""The error tree.

::

    BoxshiftError
    ├── UsageError        what was asked makes no sense: a flag, a plan file, a name      (exit 2)
    ├── RefusedError      a check or a gate says no; nothing was changed                  (exit 3)
    ├── FailedError       an appliance, a server or a tool did not do what it should      (exit 4)
    │   ├── UnreachableError    nothing answers there
    │   ├── RejectedError       it answers and refuses: credentials, key, signature, form
    │   ├── DeadlineError       it did not happen in time
    │   ├── ToolError           a program on this machine failed
    │   └── UnexpectedError     it answers, but not in a form we know; also "could not tell"
    ├── ChangedError      the world is not as it was when the plan was made               (exit 5)
    └── WaitingError      a person has to decide first                                    (exit 6)

Rooms derive their own leaves. Every error carries a stable ``code``, one sentence for the operator, a hint that says what to do
next, and facts (small JSON values, never a secret). It survives being stored and read back: :meth:`BoxshiftError.to_record` and
:func:`from_record`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

Fact = str | int | float | bool | None


class BoxshiftError(Exception):
    """Root of all errors that an operator may see as a sentence."""

    code: ClassVar[str] = "boxshift"

    def __init__(self, sentence: str, *, hint: str = "", **facts: Fact) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint
        self.facts = {name: _to_fact(value) for name, value in facts.items()}

    def __str__(self) -> str:
        return self.sentence

    def to_record(self) -> dict[str, object]:
        """As small JSON: ``code``, ``kinds`` (the codes of its ancestors, nearest first), ``sentence``, ``hint``, ``facts``."""
        kinds: list[str] = [kind.code for kind in type(self).__mro__[1:] if issubclass(kind, BoxshiftError)]
        return {"code": self.code, "kinds": kinds, "sentence": self.sentence, "hint": self.hint, "facts": dict(self.facts)}


class UsageError(BoxshiftError):
    """What was asked makes no sense; nothing was tried."""

    code = "usage"


class RefusedError(BoxshiftError):
    """A check or a gate says no; nothing was changed."""

    code = "refused"


class FailedError(BoxshiftError):
    """An appliance, a server or a tool did not do what it should."""

    code = "failed"


class UnreachableError(FailedError):
    """Nothing answers at the address."""

    code = "unreachable"


class RejectedError(FailedError):
    """The other side answers and refuses: credentials, a key, a signature, a form."""

    code = "rejected"


class DeadlineError(FailedError):
    """What was waited for did not happen in time."""

    code = "deadline"


class ToolError(FailedError):
    """A program on this machine failed."""

    code = "tool"


class UnexpectedError(FailedError):
    """The answer has a form that is not known: what is true could not be told."""

    code = "unexpected"


class ChangedError(BoxshiftError):
    """The world is not as it was when the plan was made."""

    code = "changed"


class WaitingError(BoxshiftError):
    """A person has to decide before it goes on."""

    code = "waiting"


def walk_tree(root: type[BoxshiftError] = BoxshiftError) -> Iterator[type[BoxshiftError]]:
    """Every error class that is loaded, the root first."""
    yield root
    for child in root.__subclasses__():
        yield from walk_tree(child)


def from_record(record: Mapping[str, object]) -> BoxshiftError:
    """The error that :meth:`BoxshiftError.to_record` described, of the same class.

    Where that class is not loaded in this process it comes back as the nearest ancestor that is, and keeps its code.
    """
    code, kinds = str(record.get("code", BoxshiftError.code)), record.get("kinds")
    known = {kind.code: kind for kind in walk_tree()}
    wanted = [code, *(str(kind) for kind in kinds)] if isinstance(kinds, list) else [code]
    kind = next((known[name] for name in wanted if name in known), BoxshiftError)
    error = kind.__new__(kind)
    BoxshiftError.__init__(error, str(record.get("sentence", "")), hint=str(record.get("hint", "")))
    facts = record.get("facts")
    error.facts = {str(name): _to_fact(value) for name, value in facts.items()} if isinstance(facts, dict) else {}
    if kind.code != code:
        error.__dict__["code"] = code
    return error


def _to_fact(value: object) -> Fact:
    """Facts are stored as JSON: whatever is none of its plain values is told by its text, a Secret as its mask."""
    return value if value is None or isinstance(value, str | int | float) else str(value)
