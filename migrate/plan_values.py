"""The kinds of values that a plan holds, and how each is read from what stands in the file.

Every message completes "<setting> …" and repeats nothing of the value: it may be a secret in the wrong place.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, time
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, ip_address
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyAddress

from migrate.secrets import FORMS, REFERENCE

ASK = "CHANGE-ME"  # what `boxshift init` writes where only a person knows
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
HOST_NAME = re.compile(r"^(?=.{1,253}$)([a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{1,63}$", re.IGNORECASE | re.ASCII)


def parse_duration(value: object) -> object:
    """``90``, ``90s``, ``30m``, ``24h`` or ``7d`` as seconds; other things are left for the type check to refuse."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)\s*", value)):
        return float(found[1]) * UNITS[found[2] or "s"]
    return value


def parse_answered(value: object) -> object:
    """Refuse what ``boxshift init`` left for a person to fill in."""
    if value == ASK:
        raise ValueError(f"still says {ASK}")
    return value


def parse_reference(value: str) -> str:
    """A reference to a secret. The refused value is not repeated: it may be the secret itself."""
    if not REFERENCE.match(value):
        raise ValueError(f"is not a reference to a secret; use {FORMS}")
    return value


def parse_host(value: str) -> str:
    """A fully qualified host name, in lower case."""
    if not HOST_NAME.match(value):
        raise ValueError("is not a fully qualified host name such as support.example.com")
    return value.lower().rstrip(".")


def parse_pin(value: str) -> str:
    """A SHA-256 value in hex, colons allowed."""
    plain = value.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        raise ValueError("is not a SHA-256 fingerprint of 64 hexadecimal digits")
    return plain


def parse_address(value: object) -> object:
    """An IP address as text. A bare number would be taken for one too."""
    if not isinstance(value, str | IPv4Address | IPv6Address):
        raise ValueError("is not an IP address")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def parse_admin_address(value: str) -> str:
    """An IP address or a host name; no URL, no port."""
    with suppress(ValueError):
        return str(ip_address(value))
    if not HOST_NAME.match(value) and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", value):
        raise ValueError("is neither an IP address nor a host name (a port has its own setting)")
    return value.lower()


def parse_card_address(value: str) -> str:
    """An IPv4 address with its prefix, as a network card has it."""
    try:
        return str(IPv4Interface(value if "/" in value else ""))
    except ValueError:
        raise ValueError("is not an IPv4 address with its prefix such as 10.123.7.2/24") from None


def parse_page_word(value: str) -> str:
    """What answers on a machine: ``tls:443``, ``https:8443/login``, ``http/status``."""
    found = re.fullmatch(r"(ssh|tls|https|http)(?::([0-9]{1,5}))?(/[!-~]*)?", value)
    if found is None or (found[2] and not 0 < int(found[2]) < 65536) or (found[1] in ("ssh", "tls") and found[3]):
        raise ValueError("does not name a page; write ssh, tls, https:8443/login or http/status")
    return value


def parse_moment(value: str) -> str:
    """A date and time with its offset (ISO 8601), as it was written."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("is not a date and time with offset such as 2027-02-28T22:00:00+01:00")
    return value


def parse_clock_time(value: object) -> object:
    """``22:00``: what YAML may have read as a number is not taken."""
    if isinstance(value, time):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"([01]?[0-9]|2[0-3]):[0-5][0-9]", value):
        raise ValueError("is not a clock time such as 22:00")
    hour, minute = value.split(":")
    return time(int(hour), int(minute))


def parse_version_text(value: str) -> str:
    """``22.1.4``, or nothing."""
    if value and not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}){1,5}", value, re.ASCII):
        raise ValueError("is not a version such as 22.1.4")
    return value


def parse_number(value: object) -> object:
    """A whole number that stands in the file as text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=90 * 86400, allow_inf_nan=False)]
ClockTime = Annotated[time, BeforeValidator(parse_clock_time)]
VersionText = Annotated[str, AfterValidator(parse_version_text)]
Moment = Annotated[str, AfterValidator(parse_moment)]
IpAddress = Annotated[IPvAnyAddress, BeforeValidator(parse_address), BeforeValidator(parse_answered)]
AdminAddress = Annotated[str, AfterValidator(parse_admin_address), BeforeValidator(parse_answered)]
CardAddress = Annotated[str, AfterValidator(parse_card_address), BeforeValidator(parse_answered)]
SecretRef = Annotated[str, AfterValidator(parse_reference)]
PageWord = Annotated[str, AfterValidator(parse_page_word)]
HostName = Annotated[str, AfterValidator(parse_host)]
Pin = Annotated[str, AfterValidator(parse_pin), BeforeValidator(parse_answered)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(parse_answered)]
