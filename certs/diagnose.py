"""Everything that is wrong with a bundle, all at once, each with a stable code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from certs.bundle import Bundle
from certs.cert import Cert
from certs.errors import (
    CertsError,
    KeystoreError,
    LegacyCipherError,
    PassphraseNeededError,
    TooCostlyError,
    UnsupportedError,
    WrongPassphraseError,
)
from certs.findings import Case, Finding, Measure, Severity, appliance_warnings
from certs.names import MALFORMED
from certs.rules.chain import check_chain, check_signatures
from certs.rules.constraints import check_depth, check_name_constraints
from certs.rules.form import check_form
from certs.rules.key import check_key, check_strength
from certs.rules.names import check_names
from certs.rules.revocation import check_revocation
from certs.rules.time import check_dates
from certs.rules.usage import check_usage
from certs.rules.verifier import find_refusal

_RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    check_dates,
    check_names,
    check_key,
    check_chain,
    check_signatures,
    check_usage,
    check_strength,
    check_form,
    check_depth,
    check_name_constraints,
    check_revocation,
)
_GRAVE = (WrongPassphraseError, PassphraseNeededError, LegacyCipherError, TooCostlyError, KeystoreError)


def diagnose(
    bundle: Bundle,
    *,
    hostname: str | Sequence[str] = (),
    at: datetime | None = None,
    clock_offset: timedelta | None = None,
    allow_private: bool = False,
    need_key: bool = False,
    strict: bool = False,
) -> tuple[Finding, ...]:
    """Every finding about a bundle, the worst first.

    ``hostname``: one or several names (or IP addresses) that it must serve. ``at``: true time in UTC, now where None.
    ``clock_offset``: how far the box's clock is ahead of true time, so that a wrong clock is told apart from an expired certificate.
    ``allow_private``: a private CA or a self-signed certificate is legal. ``need_key``: a missing key blocks. ``strict``: measure by
    the rules for public authorities rather than by what clients refuse.
    """
    names = (hostname,) if isinstance(hostname, str) else tuple(hostname)
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    case = Case(
        bundle,
        tuple(name for name in names if name),
        moment,
        clock_offset,
        measure=Measure.WEBPKI if strict else Measure.USUAL,
        allow_private=allow_private,
        need_key=need_key,
        crls=bundle.crls,
    )
    return judge(case)


def judge(case: Case) -> tuple[Finding, ...]:
    """Every finding of one case, the worst first, none twice. The library's verifier speaks last, where the rules found nothing grave."""
    found = [finding for rule in _RULES for finding in _apply(rule, case)]
    grave = Severity.WARNING if case.is_usual else Severity.ERROR
    if not case.is_authority and not any(finding.severity >= grave for finding in found):
        refusal = find_refusal(case)
        if refusal is not None:
            found.append(case.find("verifier_refuses", f"The library's verifier refuses {case.bundle.leaf}: {refusal}."))
    found += _of_reading(case)
    return tuple(sorted(dict.fromkeys(found), key=lambda each: -each.severity))


def _apply(rule: Callable[[Case], Iterator[Finding]], case: Case) -> Iterator[Finding]:
    """One rule. Where it trips over a malformed certificate that is a finding too, and the other rules still speak."""
    try:
        yield from rule(case)
    except MALFORMED as error:
        what = rule.__name__.removeprefix("check_").replace("_", " ")
        yield case.find("not_judged", f"The {what} could not be judged: {type(error).__name__} at something malformed.")


def judge_paths(case: Case) -> tuple[Case, tuple[Finding, ...]]:
    """The case on the path with the fewest errors, and its findings: where several ways lead up, one good one is enough."""
    best, found = case, judge(case)
    for path in case.bundle.paths:
        if not any(finding.blocks for finding in found):
            break
        other = replace(case, bundle=take_path(case.bundle, path))
        again = judge(other)
        if sum(finding.blocks for finding in again) < sum(finding.blocks for finding in found):
            best, found = other, again
    return best, found


def take_path(bundle: Bundle, path: tuple[Cert, ...]) -> Bundle:
    """The bundle with another of its ways up: ``path`` is one of ``bundle.paths``."""
    now = (*bundle.chain, bundle.root) if bundle.root is not None and bundle.root != bundle.leaf else bundle.chain
    rest = tuple(each for each in bundle.paths if each != path)
    return replace(bundle, chain=path[:-1], root=path[-1], paths=(tuple(cert for cert in now if cert), *rest))


def _of_reading(case: Case) -> Iterator[Finding]:
    for note in case.bundle.notes:
        yield Finding(note.code, Severity.INFO, note.sentence, "", note.where)
    for error in case.bundle.failures:
        yield Finding(error.code, _gravity(error), error.sentence, error.hint, str(error.facts.get("where", "")))


def _gravity(error: CertsError) -> Severity:
    if isinstance(error, _GRAVE):
        return Severity.ERROR
    return Severity.INFO if isinstance(error, UnsupportedError) else Severity.WARNING


def worst(findings: Sequence[Finding]) -> Severity | None:
    """The severity of the gravest, None where there are none."""
    return max((finding.severity for finding in findings), default=None)


__all__ = ["Finding", "Severity", "appliance_warnings", "diagnose", "judge", "worst"]
