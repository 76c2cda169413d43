"""What the commands print: lines for people, plain values for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from certs.backend import read_backend
from certs.bundle import Bundle, Contents, Trust
from certs.cert import Cert
from certs.findings import Finding, Severity
from certs.key import Key
from certs.served import Comparison, Served
from certs.targets import Target


def render_tree(bundle: Bundle, at: datetime | None = None) -> str:
    """The chain as a tree, the leaf on top, one line a certificate."""
    now = at or datetime.now(UTC)
    lines = [_line(bundle.leaf, now)]
    indent = ""
    for cert in bundle.path[1:]:
        lines.append(f"{indent}└─ {_line(cert, now)}")
        indent += "   "
    lines[-1] += f"  [{_ends(bundle)}]"
    if bundle.trust is Trust.UNKNOWN:
        lines.append(f"{indent}└─ ? {bundle.certs[-1].issuer}")
    key = f"fits ({bundle.key}, read by {bundle.key.how})" if bundle.key else "none that fits"
    lines += [f"Private key: {key}", f"Names: {bundle.names}"]
    lines += [f"SHA-256: {bundle.leaf.sha256}", f"Key SHA-256: {bundle.spki_sha256}"]
    return "\n".join(lines)


def _ends(bundle: Bundle) -> str:
    return {Trust.SYSTEM: "trusted root", Trust.GIVEN: "private CA", Trust.SELF_SIGNED: "self-signed", Trust.UNKNOWN: "issuer missing"}[
        bundle.trust
    ]


def _line(cert: Cert, now: datetime) -> str:
    if cert.not_after is None:
        until = "no valid date"
    else:
        days = (cert.not_after - now).days
        until = f"until {cert.not_after:%Y-%m-%d} ({days:,} days)" if days >= 0 else f"EXPIRED {cert.not_after:%Y-%m-%d}"
    return f"{cert}  {cert.key_kind}, {cert.signature_hash or 'own hash'}, {until}"


def render_findings(findings: Iterable[Finding]) -> str:
    """Each finding with its severity and code, the hint below."""
    lines = []
    for finding in findings:
        where = f" ({finding.about})" if finding.about and finding.about.split(" (")[0] not in finding.sentence else ""
        lines.append(f"{finding.severity.name:8}{finding.code}: {finding.sentence}{where}")
        if finding.hint and finding.severity is not Severity.INFO:
            lines.append(f"        {finding.hint}")
    return "\n".join(lines)


def render_heap(contents: Contents) -> str:
    """Everything found, with which key fits what: where no single leaf can be told."""
    lines = [
        f"certificate  {cert} ({cert.sha256[:12]}), key {cert.spki_sha256[:12]}, issued by {cert.issuer}{_in(cert.where)}"
        for cert in dict.fromkeys(contents.certs)
    ]
    lines += [f"private key  {key}{_in(key.where)}: {', '.join(fitting(contents, key)) or 'fits none of them'}" for key in contents.keys]
    lines += [f"{len(contents.crls)} revocation lists"] if contents.crls else []
    return "\n".join(lines)


def _in(where: str) -> str:
    return f", in {where}" if where else ""


def fitting(contents: Contents, key: Key) -> list[str]:
    """The certificates that a key fits."""
    return [f"fits {cert} ({cert.sha256[:12]})" for cert in dict.fromkeys(contents.certs) if key.fits(cert)]


def cert_value(cert: Cert) -> dict[str, Any]:
    """A certificate as plain values. Fingerprints in lower-case hex, times in ISO 8601 and UTC."""
    return {
        "name": cert.name,
        "subject": cert.subject,
        "issuer": cert.issuer,
        "dns_names": list(cert.names.dns),
        "ip_addresses": list(cert.names.addresses),
        "other_names": list(cert.names.other),
        "not_before": cert.not_before.isoformat() if cert.not_before else None,
        "not_after": cert.not_after.isoformat() if cert.not_after else None,
        "serial": f"{cert.serial:x}",
        "sha256": cert.sha256,
        "spki_sha256": cert.spki_sha256,
        "key": cert.key_kind,
        "signature_hash": cert.signature_hash,
        "is_ca": cert.is_ca,
        "must_staple": cert.must_staple,
        "label": cert.label,
        "where": cert.where,
    }


def bundle_value(bundle: Bundle) -> dict[str, Any]:
    """A bundle as plain values; of keys only kind and public fingerprint."""
    return {
        "leaf": cert_value(bundle.leaf),
        "chain": [cert_value(cert) for cert in bundle.chain],
        "root": cert_value(bundle.root) if bundle.root else None,
        "trust": bundle.trust.name.lower(),
        "key": {"kind": bundle.key.kind, "spki_sha256": bundle.key.spki_sha256, "was_encrypted": bundle.key.encrypted}
        if bundle.key
        else None,
        "spare_keys": [{"kind": key.kind, "spki_sha256": key.spki_sha256} for key in bundle.spare_keys],
        "others": [cert_value(cert) for cert in bundle.others],
        "other_paths": [[cert.sha256 for cert in path] for path in bundle.paths],
    }


def backend_value() -> dict[str, Any]:
    """What this machine's OpenSSL offers as plain values."""
    found = read_backend()
    return {"version": found.openssl, "legacy": found.legacy, "fips": found.fips, "old_ciphers": list(found.ciphers)}


def heap_value(contents: Contents) -> dict[str, Any]:
    """Everything found as plain values."""
    return {
        "certificates": [cert_value(cert) for cert in dict.fromkeys(contents.certs)],
        "keys": [
            {
                "kind": key.kind,
                "spki_sha256": key.spki_sha256,
                "where": key.where,
                "fits": [cert.sha256 for cert in dict.fromkeys(contents.certs) if key.fits(cert)],
            }
            for key in contents.keys
        ],
    }


def finding_value(finding: Finding) -> dict[str, str]:
    """A finding as plain values."""
    return {
        "code": finding.code,
        "severity": finding.severity.name.lower(),
        "sentence": finding.sentence,
        "hint": finding.hint,
        "about": finding.about,
    }


def render_served(served: Served, compared: Comparison | None) -> str:
    """What each handshake with one address showed, and the verdict."""
    lines = [f"{served.host} at {served.address} port {served.port}"]
    for shown in served.presented:
        asked = f"{shown.version}, {f'SNI {shown.server_name}' if shown.server_name else 'no SNI'}"
        if shown.failure:
            lines.append(f"  {asked}: {shown.failure}")
        else:
            chain = " → ".join(f"{cert} ({cert.sha256[:12]})" for cert in shown.certs)
            lines.append(f"  {asked}: {chain}{', OCSP stapled' if shown.staple else ''}")
    if compared is not None:
        lines.append(f"  {compared.verdict.value.upper()}: {compared.sentence}")
        lines += [f"    {line}" for line in compared.differences]
    return "\n".join(lines)


def served_value(served: Served, compared: Comparison | None, findings: Sequence[Finding]) -> dict[str, Any]:
    """What one address showed as plain values."""
    return {
        "host": served.host,
        "address": served.address,
        "port": served.port,
        "handshakes": [
            {
                "version": shown.version,
                "server_name": shown.server_name,
                "certificates": [cert.sha256 for cert in shown.certs],
                "stapled": bool(shown.staple),
                "failure": shown.failure,
            }
            for shown in served.presented
        ],
        "certificates": [cert_value(cert) for cert in served.certs],
        "verdict": compared.verdict.value if compared else None,
        "sentence": compared.sentence if compared else "",
        "differences": list(compared.differences) if compared else [],
        "findings": [finding_value(finding) for finding in findings],
    }


def render_plan(bundle: Bundle, target: Target, *, keep_root: bool, out: str) -> str:
    """What a writer is about to write."""
    profile = target.profile
    certs = bundle.path if keep_root else bundle.certs
    lines = [f"{out}: {profile.container} for {target.value} ({profile.why})"]
    if profile.rounds:
        mac = f", MAC {profile.mac}" if profile.mac else ""
        lines.append(f"  {profile.cipher.value}, {profile.rounds:,} rounds{mac}")
    if target is Target.FIPS:
        lines.append(f"  written by {read_backend()}")
    lines += [f"  {number}. {cert} ({cert.sha256[:12]})" for number, cert in enumerate(certs, 1)]
    lines.append(f"  private key: {bundle.key or 'none'}")
    if bundle.root is not None and not keep_root and bundle.root != bundle.leaf:
        lines.append(f"  left out: the root {bundle.root} (--keep-root keeps it)")
    lines += [f"  left out: {cert} ({cert.sha256[:12]}), which is not part of the chain" for cert in bundle.others]
    lines += [f"  left out: the {key}, which does not fit the leaf" for key in bundle.spare_keys]
    if bundle.crls:
        lines.append(f"  left out: {len(bundle.crls)} revocation lists")
    return "\n".join(lines)
