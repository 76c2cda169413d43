"""What the commands that look at servers do: ``served`` and ``expiry``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certs.bundle import Bundle, Contents
from certs.cert import Cert
from certs.chain import assemble
from certs.commands import FAILED, FOUND, Answer, Given, code_of, complaint, complaints, render_json
from certs.errors import CertsError
from certs.findings import Finding
from certs.inputs import parse_place, parse_span
from certs.loading import find_addresses, load_contents
from certs.protocols import Protocol
from certs.reports import cert_value, render_findings, render_served, served_value
from certs.roots import Roots, read_roots, system_roots
from certs.served import Comparison, Served, compare_served, read_served, wait_for_served
from certs.served_checks import check_served
from kit.errors import DeadlineError, UsageError

Tell = Callable[[str], None]


def run_expiry(given: Given, hosts: Sequence[str], within: str, *, as_json: bool) -> Answer:
    """What ends within a time. A host that does not answer hides nothing of what the others say."""
    limit = datetime.now(UTC) + parse_span(within)
    contents = load_contents(given.files, given.passphrases, given.max_rounds)
    for host in hosts:
        contents = contents + _ask(host)
    certs = list(dict.fromkeys(contents.certs))
    if not certs and not contents.failures:
        raise UsageError("No certificate was found to look at.", hint="Name a file, or a host with --host.")
    late = [cert for cert in certs if cert.not_after is None or cert.not_after <= limit]
    code = FOUND if late else FAILED if contents.failures else 0
    if as_json:
        failures = [error.to_record() for error in contents.failures]
        value = {"certificates": [{**cert_value(cert), "due": cert in late} for cert in certs], "failures": failures}
        return Answer(render_json(value), code)
    lines = [_expiry_line(cert, due=cert in late) for cert in sorted(certs, key=lambda each: each.not_after or limit)]
    return Answer("\n".join(lines), code, complaints(contents))


def _expiry_line(cert: Cert, *, due: bool) -> str:
    ends = f"{cert.not_after:%Y-%m-%d %H:%M}" if cert.not_after else "no valid date"
    return f"{'DUE' if due else 'ok '} {ends} {cert}{f', {cert.where}' if cert.where else ''}"


def _ask(host: str) -> Contents:
    try:
        return Contents(certs=tuple(replace(cert, where=host) for cert in read_served(*parse_place(host), without_sni=False).certs))
    except CertsError as error:
        error.facts["where"] = host
        return Contents(failures=(error,))


@dataclass(frozen=True)
class Look:
    """What ``served`` looks at and compares with."""

    place: str
    addresses: Sequence[str] = ()
    expected: Sequence[Path] = ()
    old: Sequence[Path] = ()
    passphrases: Sequence[str] = ()
    roots: Path | None = None
    protocol: Protocol = Protocol.TLS
    wait: str | None = None
    timeout: float = 10.0
    private: bool = False


@dataclass(frozen=True)
class _Wanted:
    """What every address is held against. ``end``: until when it is looked at again (of the monotonic clock), 0 for once."""

    host: str
    port: int
    roots: Roots
    expected: Bundle | None
    old: Cert | None
    end: float


@dataclass(frozen=True)
class _Seen:
    """One address: what it served and how that compares, or why nothing can be said."""

    address: str
    served: Served | None = None
    compared: Comparison | None = None
    findings: tuple[Finding, ...] = ()
    failure: CertsError | None = None

    @property
    def code(self) -> int:
        if self.failure is not None:
            return FAILED
        if self.compared is not None:
            return 0 if self.compared.is_same else FOUND
        return code_of(self.findings)


def run_served(look: Look, *, as_json: bool, tell: Tell) -> Answer:
    """What each address presents, and whether it is what is expected. ``tell`` hears what is seen while it is waited."""
    wanted = _read_wanted(look)
    addresses = look.addresses or find_addresses(wanted.host, wanted.port)
    seen = [_look_at(look, wanted, address, tell) for address in addresses]
    if len(seen) == 1 and seen[0].failure is not None:
        raise seen[0].failure
    code = max(each.code for each in seen)
    if as_json:
        return Answer(render_json({"served": [_value(wanted, each) for each in seen]}), code)
    return Answer("\n".join(_render(wanted, each) for each in seen), code)


def _read_wanted(look: Look) -> _Wanted:
    host, port = parse_place(look.place, port=look.protocol.port)
    if not all(look.addresses):
        raise UsageError("--address is empty.", hint="Name an address, or leave --address out.")
    if look.wait is not None and not look.expected:
        raise UsageError("--wait needs something to wait for.", hint="Say --expect FILE.")
    if not 0 < look.timeout <= 3600:
        raise UsageError("--timeout is no sensible number of seconds.", hint="Say 10, for example.")
    trusted = read_roots(look.roots) if look.roots else system_roots()
    expected = assemble(Given(look.expected, look.passphrases).readable(), roots=trusted) if look.expected else None
    before = assemble(load_contents(look.old, look.passphrases), roots=trusted).leaf if look.old else None
    end = time.monotonic() + parse_span(look.wait).total_seconds() if look.wait is not None else 0.0
    return _Wanted(host, port, trusted, expected, before, end)


def _look_at(look: Look, wanted: _Wanted, address: str, tell: Tell) -> _Seen:
    if wanted.expected is not None and wanted.end:
        _wait(look, wanted, wanted.expected, address, tell)
    try:
        shown = read_served(wanted.host, wanted.port, address=address, timeout=look.timeout, protocol=look.protocol)
        compared = compare_served(shown, wanted.expected, old=wanted.old) if wanted.expected else None
        return _Seen(address, shown, compared, check_served(shown, roots=wanted.roots, allow_private=look.private))
    except CertsError as error:
        return _Seen(address, failure=error)


def _wait(look: Look, wanted: _Wanted, expected: Bundle, address: str, tell: Tell) -> None:
    """Until it matches or the time is up; what it is then, the look that follows says."""
    left = max(wanted.end - time.monotonic(), 0.0)
    try:
        wait_for_served(
            wanted.host, wanted.port, expected, address=address, old=wanted.old, timeout=left, protocol=look.protocol, tell=tell
        )
    except DeadlineError:
        tell(f"The time is up for {address} port {wanted.port}.")


def _value(wanted: _Wanted, seen: _Seen) -> dict[str, Any]:
    served = seen.served or Served(wanted.host, wanted.port, seen.address, ())
    value = served_value(served, seen.compared, seen.findings)
    return value if seen.failure is None else {**value, "error": seen.failure.to_record()}


def _render(wanted: _Wanted, seen: _Seen) -> str:
    if seen.served is None or seen.failure is not None:
        return f"{wanted.host} at {seen.address} port {wanted.port}\n  {complaint(seen.failure) if seen.failure else ''}"
    return f"{render_served(seen.served, seen.compared)}\n{render_findings(seen.findings)}".rstrip("\n")
