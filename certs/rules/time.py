"""Dates: expired, not yet valid, a wrong clock, and chains that end before the leaf does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from certs.cert import Cert
from certs.findings import Case, Finding, Severity
from certs.raw import GENERAL_TIME, UTC_TIME

DAY = timedelta(days=1)


def check_dates(case: Case) -> Iterator[Finding]:
    """Every certificate of the path against true time and, where it is known, the box's clock."""
    for role, cert in case.roles():
        yield from _check_form(case, cert)
        if cert.not_before is None or cert.not_after is None:
            yield case.find("bad_date", f"The dates of {cert} cannot be read.", cert)
            continue
        yield from _check_window(case, role, cert, cert.not_before, cert.not_after)
    yield from _check_order(case)
    yield from _check_length(case)


def _check_window(case: Case, role: str, cert: Cert, start: datetime, end: datetime) -> Iterator[Finding]:
    now = case.at.replace(microsecond=0)  # certificates know whole seconds only
    box = now + (case.clock_offset or timedelta())
    code = {"leaf": "expired", "intermediate": "issuer_expired", "root": "root_expired"}[role]
    who = {"leaf": str(cert), "intermediate": f"the intermediate {cert}", "root": f"the root {cert}"}[role]
    if now > end:
        hint = _clock_hint(case, now - end)
        yield case.find(code, f"{_cap(who)} expired {span(now - end)} ago, on {day(end)}.", cert, hint=hint)
    elif now < start:
        hint = _clock_hint(case, start - now)
        yield case.find("not_yet_valid", f"{_cap(who)} is valid only in {span(start - now)}, from {day(start)}.", cert, hint=hint)
    elif not start <= box <= end:
        ahead = "ahead" if box > now else "behind"
        sentence = (
            f"The box's clock is {span(abs(box - now))} {ahead}, so it takes {who} for {'expired' if box > end else 'not yet valid'}."
        )
        yield case.find("clock_wrong", sentence, cert)
    elif role == "leaf" and end - now <= case.soon:
        yield case.find("expires_soon", f"{_cap(who)} expires in {span(end - now)}, on {day(end)}.", cert)


def _clock_hint(case: Case, off: timedelta) -> str:
    if off <= DAY and case.clock_offset is None:
        return "It is less than a day: compare the clocks of both boxes before blaming the certificate."
    return ""


def _check_order(case: Case) -> Iterator[Finding]:
    end = case.bundle.not_after
    for role, cert in case.roles():
        if role != "leaf" and end is not None and cert.not_after is not None and case.at <= cert.not_after < end:
            yield case.find(
                "issuer_ends_first", f"The {role} {cert} ends on {day(cert.not_after)}, before the leaf does ({day(end)}).", cert
            )


def _check_length(case: Case) -> Iterator[Finding]:
    leaf = case.bundle.leaf
    if leaf.not_before and leaf.not_after and leaf.not_after - leaf.not_before > timedelta(days=399) and not case.is_authority:
        yield case.find("long_lived", f"{leaf} is valid for {(leaf.not_after - leaf.not_before).days:,} days.", leaf)


def _check_form(case: Case, cert: Cert) -> Iterator[Finding]:
    """RFC 5280, 4.1.2.5: UTCTime until 2049, GeneralizedTime from 2050, with seconds, in Zulu time, without fractions."""
    for what, node in (("beginning", cert.raw.not_before), ("end", cert.raw.not_after)):
        text = node.content
        if node.is_a(UTC_TIME):
            good = len(text) == 13
        elif node.is_a(GENERAL_TIME):
            good = len(text) == 15 and text[:4].isdigit() and int(text[:4]) >= 2050
        else:
            good = False
        if not (good and text[:-1].isdigit() and text.endswith(b"Z")):
            shown = text.decode("ascii", errors="replace")
            yield case.find(
                "bad_date",
                f"The {what} of {cert} is written in a way that RFC 5280 forbids ({shown}).",
                cert,
                severity=Severity.WARNING if case.is_usual else None,
            )


def day(moment: datetime) -> str:
    """A date for people: ``2027-03-01``, with the time where it matters to nobody left out."""
    return moment.strftime("%Y-%m-%d")


def span(length: timedelta) -> str:
    """A length of time in one unit: ``3 days``, ``5 hours``, ``40 seconds``."""
    seconds = int(length.total_seconds())
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:,} {unit}"
    return f"{seconds} seconds"


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith("the ") else text
