"""The questions that an appliance asks before its first start, and the answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from images.hardware import DeclaredProperty
from images.import_errors import OvfError, PropertyError
from images.ovf.xml import attribute, children, flag, name_of, text_of
from kit.references import FORMS

if TYPE_CHECKING:
    from lxml import etree

MOST = 500
_INTEGERS = {
    "uint8": (0, 2**8 - 1), "sint8": (-(2**7), 2**7 - 1), "uint16": (0, 2**16 - 1), "sint16": (-(2**15), 2**15 - 1),
    "int": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1), "sint32": (-(2**31), 2**31 - 1), "uint64": (0, 2**64 - 1), "sint64": (-(2**63), 2**63 - 1),
}  # fmt: skip
_REFERENCE = re.compile(r"(env|file|keyring):.+|prompt", re.DOTALL)


def read_properties(products: Sequence[etree._Element], message: Callable[[etree._Element | None], str]) -> tuple[DeclaredProperty, ...]:
    """All properties of the products; keys are ``class.key.instance``.

    Raises:
        OvfError: there are absurdly many, or two of one key.

    """
    found: dict[str, DeclaredProperty] = {}
    for product in products:
        before, after = attribute(product, "class") or "", attribute(product, "instance") or ""
        for element in children(product, "Property"):
            one = _read(element, before, after, message)
            if one.key in found or len(found) >= MOST:
                raise OvfError(f"The descriptor has the property {one.key[:100]!r} twice, or more than {MOST} properties.")
            found[one.key] = one
    return tuple(found.values())


def _read(element: etree._Element, before: str, after: str, message: Callable[[etree._Element | None], str]) -> DeclaredProperty:
    kind = (attribute(element, "type") or "string").lower()
    qualifiers = f"{attribute(element, 'qualifiers') or ''} "
    parts = {name_of(one): one for one in children(element)}
    lowest, highest = _INTEGERS.get(kind, (None, None))
    return DeclaredProperty(
        key=".".join(word for word in (before, attribute(element, "key") or "", after) if word),
        kind=kind,
        label=message(parts.get("Label")),
        description=message(parts.get("Description")),
        default=_default(element),
        askable=flag(element, "userConfigurable", usual=False),
        password=flag(element, "password", usual=False),
        shortest=_qualified(qualifiers, "MinLen", 0),
        longest=_qualified(qualifiers, "MaxLen", 65535),
        lowest=lowest,
        highest=highest,
        choices=_choices(qualifiers),
    )


def _default(element: etree._Element) -> str | None:
    told = attribute(element, "value")
    if told is not None:
        return told or None
    return next((attribute(one, "value") or text_of(one) for one in children(element, "Value")), None)


def _qualified(qualifiers: str, name: str, usual: int) -> int:
    match = re.search(rf"\b{name}\s*\(\s*(\d{{1,6}})\s*\)", qualifiers)
    return int(match[1]) if match else usual


def _choices(qualifiers: str) -> tuple[str, ...]:
    match = re.search(r"\bValueMap\s*\{([^}]*)\}", qualifiers)
    return tuple(re.findall(r'"([^"]*)"', match[1])) if match else ()


def apply_answers(properties: Sequence[DeclaredProperty], answers: Sequence[tuple[str, str]]) -> tuple[DeclaredProperty, ...]:
    """The properties with what was given.

    Raises:
        PropertyError: there is no such property, it may not be set, the value does not fit, or a password is given as it is.

    """
    given: dict[str, str] = {}
    known = {one.key: one for one in properties}
    for key, value in answers:
        if key not in known:
            asked = ", ".join(one.key for one in properties if one.askable) or "none"
            raise PropertyError(f"The appliance has no property {key[:100]!r}.", hint=f"It asks for: {asked}.")
        if not known[key].askable:
            raise PropertyError(f"The appliance does not let its property {key!r} be set.")
        given[key] = value
    return tuple(answer(one, given[one.key]) if one.key in given else one for one in properties)


def answer(one: DeclaredProperty, value: str) -> DeclaredProperty:
    """The property with that answer; a password's is a reference to where it is kept.

    Raises:
        PropertyError: the value does not fit.

    """
    if one.password:
        if not _REFERENCE.fullmatch(value):
            raise PropertyError(
                f"The property {one.key} is a password: say where it is kept.", hint=f"Use {FORMS}; never the password itself."
            )
        return replace(one, reference=value)
    verify_value(one, value)
    return replace(one, value=value)


def verify_value(one: DeclaredProperty, value: str) -> None:
    """Refuse a value that the appliance does not allow. The value itself is never in the error.

    Raises:
        PropertyError: it is too long, no number, not one of the choices.

    """
    if not one.shortest <= len(value) <= one.longest:
        raise PropertyError(f"The value of {one.key} has {len(value)} characters; it takes {one.shortest} to {one.longest}.")
    if any(ord(char) < 32 and char not in "\t\n\r" for char in value):
        raise PropertyError(f"The value of {one.key} holds characters that cannot be written.")
    if one.choices and value not in one.choices:
        raise PropertyError(f"The value of {one.key} is none of those that it takes.", hint=f"It takes: {', '.join(one.choices[:20])}.")
    if one.kind == "boolean" and value.lower() not in ("true", "false"):
        raise PropertyError(f"The value of {one.key} must be true or false.")
    if one.lowest is not None and one.highest is not None:
        number = int(value) if re.fullmatch(r"-?[0-9]{1,20}", value) else None
        if number is None or not one.lowest <= number <= one.highest:
            raise PropertyError(f"The value of {one.key} must be a number from {one.lowest} to {one.highest}.")
