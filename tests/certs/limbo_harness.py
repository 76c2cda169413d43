"""Runs cases of C2SP/x509-limbo through certs and through the plain library, and counts.

As a program: ``python tests/certs/limbo_harness.py FILE`` prints the figures for any file in limbo's format (the whole limbo.json too).
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509 import verification

from certs.bundle import Contents
from certs.cert import Cert, as_address
from certs.chain import assemble
from certs.diagnose import judge_paths
from certs.errors import CertsError
from certs.findings import Case, Finding, Measure, Severity
from certs.pem import find_blocks
from certs.roots import Roots

# Codes that say "no" without saying why: never counted as a cause.
GENERAL = frozenset({"verifier_refuses", "not_judged"})

# The cause that the case was made for, by its name in limbo. The first row that matches counts.
CAUSES: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (pattern, frozenset(codes.split()))
    for pattern, codes in (
        (r"bettertls::nameconstraints::", "name_not_permitted hostname_mismatch no_alt_names"),
        (r"bettertls::pathbuilding::", "issuer_expired not_a_ca name_not_permitted wrong_usage issuer_missing weak_signature"),
        (r"crl::revoked", "revoked"),
        (r"crl::", "bad_crl"),
        (r"cve::cve-2025-61727", "name_not_permitted"),
        (r"cve::cve-2024-0567", "path_too_long issuer_missing"),
        (r"invalid::", "malformed malformed_extension key_unusual bad_key not_signed_by issuer_missing certs.damaged"),
        (r"online::", "expired issuer_expired hostname_mismatch issuer_missing"),
        (r"pathlen::", "path_too_long"),
        (r"pathological::nc-dos", "too_many_names name_not_permitted"),
        # A hundred intermediates that end in no root: giving up at a depth, or in a circle, is the cause as well.
        (r"pathological::", "issuer_missing private_ca path_too_long"),
        (r"rfc5280::aki::critical", "critical_wrong"),
        (r"(rfc5280|webpki)::(aki|ski)::.*critical", "critical_wrong"),
        (r"(rfc5280|webpki)::(aki|ski)::", "bad_key_identifier"),
        (r"::eku::ee-eku-empty", "wrong_usage malformed_extension"),
        (r"webpki::eku::ee-anyeku", "any_usage"),
        (r"webpki::eku::ee-critical-eku", "critical_wrong"),
        (r"webpki::eku::ee-without-eku", "usage_missing"),
        (r"::eku::", "wrong_usage"),
        (r"rfc5280::nc::invalid-(?!.*san)", "bad_name_constraints malformed_extension"),
        (r"rfc5280::nc::not-allowed-in-ee", "bad_name_constraints"),
        (r"rfc5280::nc::nc-permits-invalid", "name_not_permitted bad_alt_name"),
        (r"webpki::nc::.*(null|empty)", "bad_name_constraints malformed_extension"),
        (r"rfc5280::nc::.*noncritical", "critical_wrong"),
        (r"::nc::", "name_not_permitted"),
        (r"rfc5280::pc::", "bad_policy"),
        (r"rfc5280::san::malformed", "malformed_extension"),
        (r"rfc5280::san::noncritical", "critical_wrong"),
        (r"rfc5280::san::", "bad_alt_name"),
        (r"rfc5280::serial::", "bad_serial"),
        (r"rfc5280::validity::.*(expired|notafter)", "expired issuer_expired root_expired bad_date"),
        (r"rfc5280::validity::not-yet|rfc5280::validity::notbefore", "not_yet_valid bad_date"),
        (r"rfc5280::validity::", "bad_date"),
        (r"rfc5280::(ee-empty-issuer|ca-empty-subject)", "empty_subject"),
        (r"rfc5280::unknown-critical", "unknown_critical"),
        (r"chain-untrusted-root|missing-intermediate$", "issuer_missing private_ca"),
        # These two files do not hold the intermediate that their description speaks of.
        (r"rfc5280::(intermediate-ca-missing-basic-constraints|ica-ku-keycertsign)", "issuer_missing not_a_ca"),
        (r"rfc5280::root-non-critical-basic", "critical_wrong"),
        (r"rfc5280::(root|ica|intermediate|leaf).*(basic|ca-bit|ca-ext|keycertsign)", "not_a_ca critical_wrong"),
        (r"rfc5280::ee-critical-aia", "critical_wrong"),
        (r"rfc5280::duplicate", "duplicate_extension"),
        (r"rfc5280::mismatching-signature", "bad_algorithm malformed"),
        (r"ca-as-leaf-wrong-san", "hostname_mismatch"),
        (r"webpki::cn::", "common_name_differs"),
        (r"webpki::san::(public-suffix|.*wildcard-only)", "wildcard_too_wide bad_alt_name"),
        (r"webpki::san::no-san", "no_alt_names"),
        (r"webpki::san::san-critical", "critical_alt_names"),
        (r"webpki::san::unicode|webpki::san::wildcard-(embedded|not)", "bad_alt_name hostname_mismatch"),
        (r"webpki::san::", "hostname_mismatch"),
        (r"webpki::explicit-curve", "explicit_curve"),
        (r"webpki::malformed-aia", "bad_access_information malformed_extension"),
        (r"webpki::forbidden-", "key_weak key_unusual"),
        (r"webpki::v1-cert", "bad_version"),
        (r"webpki::(ee-basic|ca-as-leaf)", "ca_as_leaf"),
    )
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One case: what was expected, what certs says, what the library says (None where it cannot be asked)."""

    name: str
    expected: bool
    ours: bool
    library: bool | None
    findings: tuple[Finding, ...]

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of what blocks."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings if finding.severity is Severity.ERROR))

    @property
    def wanted(self) -> frozenset[str]:
        return next((codes for pattern, codes in CAUSES if re.search(pattern, self.name)), frozenset())

    @property
    def is_named(self) -> bool:
        """Whether a finding that blocks names the cause the case was made for."""
        return bool(set(self.codes) & self.wanted - GENERAL)


def read_cases(path: Path) -> list[dict[str, Any]]:
    """The cases of a file: limbo's own form, or a bare list."""
    found = json.loads(path.read_text())
    return list(found["testcases"] if isinstance(found, dict) else found)


def run_case(case: dict[str, Any]) -> Outcome:
    """One case through certs and the library."""
    try:
        findings = judge_case(case)
    except CertsError as error:
        findings = (Finding(error.code, Severity.ERROR, error.sentence),)
    ours = not any(finding.blocks for finding in findings)
    return Outcome(case["id"], case["expected_result"] == "SUCCESS", ours, ask_library(case), findings)


def judge_case(case: dict[str, Any]) -> tuple[Finding, ...]:
    """What certs says. The measure is the standard that the case's own name names."""
    leaf = _certs([case["peer_certificate"]])[0]
    pool = _certs(case["untrusted_intermediates"])
    at = _moment(case)
    bundle = assemble(Contents(certs=(leaf, *pool)), roots=Roots(_certs(case["trusted_certs"])), choose=leaf.sha256, at=at)
    host = (case.get("expected_peer_name") or {}).get("value")
    depth = case.get("max_chain_depth")
    _, findings = judge_paths(
        Case(
            bundle,
            (host,) if host and case["validation_kind"] == "SERVER" else (),
            at,
            measure=Measure.WEBPKI if case["id"].startswith("webpki::") else Measure.RFC5280,
            client=case["validation_kind"] == "CLIENT",
            max_depth=depth,
            crls=tuple(text.encode() for text in case.get("crls") or ()),
        )
    )
    return findings


def ask_library(case: dict[str, Any]) -> bool | None:
    """What cryptography's verifier says; None where it cannot be asked (no server name, a client, a revocation list)."""
    peer = case.get("expected_peer_name")
    if case["validation_kind"] != "SERVER" or peer is None:
        return None
    try:
        roots = [x509.load_pem_x509_certificate(text.encode()) for text in case["trusted_certs"]]
        pool = [x509.load_pem_x509_certificate(text.encode()) for text in case["untrusted_intermediates"]]
        leaf = x509.load_pem_x509_certificate(case["peer_certificate"].encode())
        address = as_address(peer["value"])
        subject = x509.IPAddress(address) if address is not None else x509.DNSName(peer["value"])
        builder = verification.PolicyBuilder().store(verification.Store(roots)).time(_moment(case).replace(tzinfo=None))
        if case.get("max_chain_depth") is not None:
            builder = builder.max_chain_depth(case["max_chain_depth"])
        builder.build_server_verifier(subject).verify(leaf, pool)
    except (verification.VerificationError, ValueError, x509.UnsupportedGeneralNameType):
        return False
    return True


def _certs(texts: list[str]) -> list[Cert]:
    return [Cert(block.der) for text in texts for block in find_blocks(text.encode())]


def _moment(case: dict[str, Any]) -> datetime:
    text = case.get("validation_time")
    return datetime.fromisoformat(text).astimezone(UTC) if text else datetime.now(UTC)


@dataclass(frozen=True)
class Score:
    """Counts over many cases."""

    cases: int
    right: int
    library_asked: int
    library_right: int
    behind: tuple[Outcome, ...]
    wrong: tuple[Outcome, ...]
    failures: int
    named: int
    unnamed: tuple[Outcome, ...]


def score(outcomes: list[Outcome]) -> Score:
    """Count them. ``behind`` lists the cases that the library has right and certs has not."""
    failing = [each for each in outcomes if not each.expected]
    asked = [each for each in outcomes if each.library is not None]
    return Score(
        len(outcomes),
        sum(each.ours == each.expected for each in outcomes),
        len(asked),
        sum(each.library == each.expected for each in asked),
        tuple(each for each in asked if each.library == each.expected != each.ours),
        tuple(each for each in outcomes if each.ours != each.expected),
        len(failing),
        sum(each.is_named for each in failing),
        tuple(each for each in failing if not each.is_named),
    )


def render(found: Score) -> str:
    """The figures as lines."""
    lines = [
        f"cases {found.cases}: certs right in {found.right}, behind the library in {len(found.behind)}",
        f"the library: right in {found.library_right} of {found.library_asked} that it can be asked",
        f"FAILURE cases {found.failures}; real cause named in {found.named} ({100 * found.named / max(found.failures, 1):.1f} %)",
    ]
    lines += [f"  wrong: {each.name}, expected {'yes' if each.expected else 'no'}, codes {each.codes}" for each in found.wrong]
    lines += [f"  cause not named: {each.name}, wanted {sorted(each.wanted)}, got {each.codes}" for each in found.unnamed]
    return "\n".join(lines)


if __name__ == "__main__":
    done = [run_case(case) for case in read_cases(Path(sys.argv[1]))]
    sys.stdout.write(f"{render(score(done))}\n{dict(Counter(each.name.split('::')[0] for each in done))}\n")
