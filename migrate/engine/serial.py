"""JSON only. What is stored is data that anybody may read back; nothing that could run code when it is read."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from kit.errors import FailedError, UsageError
from kit.secret import Secret
from migrate.runbook import Json

_ERROR = "boxshift-error"


class ForgedError(FailedError):
    """A row of the database is in a form that the engine never writes."""

    code = "forged-row"


class UnfitValueError(UsageError):
    """A value that must not, or cannot, be stored."""

    code = "unfit-value"


class RecordedError(Exception):
    """An exception that was stored: only the name of its type, since its text may repeat what it was given."""


def to_text(value: object) -> str:
    """Compact JSON in plain ASCII.

    Raises:
        UnfitValueError: a Secret, an object, a number that is not finite.

    """
    verify_json(value)
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def from_text(text: str | None) -> Any:
    """Back from :func:`to_text`; None stays None.

    Raises:
        ForgedError: it is not JSON.

    """
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise ForgedError("A stored value is not JSON; the run database has been altered.", hint="Restore it from a copy.") from None


def verify_json(value: object, where: str = "value") -> None:
    """Raise unless ``value`` is plain JSON. The sentence names the place, never the content.

    Raises:
        UnfitValueError: it holds a Secret or anything else that is not JSON.

    """
    if isinstance(value, Secret):
        raise UnfitValueError(f"A secret stands at {where}; secrets are never stored.", hint="Store a reference to it instead.")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UnfitValueError(f"A key at {where} is not text.")
            verify_json(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            verify_json(item, f"{where}[{number}]")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - the plain test for "not a number"
            raise UnfitValueError(f"The number at {where} is not finite.")
    elif not (value is None or isinstance(value, (str, int, bool))):
        raise UnfitValueError(f"What stands at {where} is a {type(value).__name__}, not JSON.")


def plain(value: object) -> Json:
    """``value`` as it will read when it comes back from the database: tuples as lists."""
    answer: Json = json.loads(to_text(value))
    return answer


def refuse_pickle(*_: object) -> NoReturn:
    """Stands where the library would unpickle."""
    raise ForgedError("A stored value is pickled; the engine never writes that, and does not read it.")


class JsonOnly:
    """The serializer given to the library. It is registered as its subclass by :mod:`migrate.engine.flow`."""

    def name(self) -> str:
        """The mark that rows carry."""
        return "boxshift_json"

    def serialize(self, data: Any) -> str:
        """As JSON; an exception as the name of its type."""
        if isinstance(data, BaseException):
            return json.dumps({_ERROR: type(data).__name__})
        return to_text(data)

    def deserialize(self, serialized_data: str) -> Any:
        """Back again."""
        value = from_text(serialized_data)
        if isinstance(value, dict) and set(value) == {_ERROR}:
            return RecordedError(str(value[_ERROR]))
        return value
