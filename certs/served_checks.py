"""What is wrong with what is served, without anything to compare it with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from certs.bundle import Bundle, Contents
from certs.cert import Signed
from certs.chain import assemble
from certs.diagnose import diagnose
from certs.findings import Finding, Severity
from certs.roots import Roots
from certs.rules.names import covers
from certs.served import Served
from certs.tls import Presented


def check_served(
    served: Served, *, roots: Roots | None = None, at: datetime | None = None, allow_private: bool = False
) -> tuple[Finding, ...]:
    """Every finding about what an address serves: its order, what is missing or too much, and all that :func:`diagnose` knows."""
    bundle = served_bundle(served, roots=roots, at=at)
    host = served.best.server_name or served.host if served.best else served.host
    judged = [finding for finding in diagnose(bundle, hostname=host, at=at, allow_private=allow_private) if finding.code not in _NOT_HERE]
    found = [*_of_handshakes(served), *judged]
    return tuple(sorted(dict.fromkeys(found), key=lambda each: -each.severity))


_NOT_HERE = {"key_missing", "order_changed", "duplicates"}


def served_bundle(served: Served, *, roots: Roots | None = None, at: datetime | None = None) -> Bundle:
    """The served certificates as a bundle, the first of them its leaf."""
    bundle = assemble(Contents(certs=served.certs), roots=roots, choose=served.certs[0].sha256, at=at)
    return replace(bundle, others=tuple(cert for cert in bundle.others if cert != bundle.root))


def _of_handshakes(served: Served) -> Iterator[Finding]:
    for shown in served.presented:
        if shown.failure:
            asked = f"{shown.version} {'with' if shown.server_name else 'without'} SNI"
            yield Finding("no_handshake", Severity.INFO, f"{served.address} does not do {asked}: {shown.failure}", "", served.address)
    if served.best is None:
        return
    yield from _of_order(served, served.best)
    leaf = served.best.certs[0]
    if leaf.must_staple and not any(shown.staple for shown in served.presented):
        sentence = f"{served.address} sends no stapled OCSP answer, which {leaf} demands (must-staple)."
        yield Finding("staple_missing", Severity.ERROR, sentence, "Turn on OCSP stapling there.", served.address)
    bare = served.without_name
    if bare is not None and bare.certs[0] != leaf:
        sentence = f"{served.address} serves another certificate to clients that send no SNI: {bare.certs[0]}."
        yield Finding("default_without_sni", Severity.INFO, sentence, "", served.address)
    if served.best.server_name and not covers(leaf, served.best.server_name) and bare is not None and bare.certs[0] == leaf:
        sentence = f"{served.address} does not know the name {served.best.server_name} and serves its default certificate."
        yield Finding("served_default", Severity.ERROR, sentence, "Assign the certificate to this address or name there.", served.address)


def _of_order(served: Served, shown: Presented) -> Iterator[Finding]:
    certs = shown.certs
    if len(set(certs)) < len(certs):
        twice = ", ".join(str(cert) for number, cert in enumerate(certs) if cert in certs[:number])
        hint = "Send each certificate once; some clients refuse duplicates."
        yield Finding("served_duplicate", Severity.WARNING, f"{served.address} sends {twice} twice.", hint, served.address)
    rest = list(dict.fromkeys(certs))
    if any(below.check_signed_by(above) is Signed.NO for below, above in pairwise(rest)) and _can_be_ordered(served):
        order = " → ".join(map(str, certs))
        hint = "Send the leaf first, then each issuer after what it signed; strict clients refuse another order."
        yield Finding(
            "served_order", Severity.WARNING, f"{served.address} sends the certificates in the wrong order: {order}.", hint, served.address
        )
    roots = [cert for cert in rest[1:] if cert.is_self_issued]
    if roots:
        sentence = f"{served.address} sends the root {roots[0]} too."
        yield Finding("served_root", Severity.INFO, sentence, "Leave it out; clients have it or do not trust it.", served.address)


def _can_be_ordered(served: Served) -> bool:
    """Whether another order of the same certificates makes a chain: else one is missing or foreign, which is another finding."""
    bundle = served_bundle(served, roots=None)
    return len(bundle.certs) + (bundle.root in served.certs and bundle.root != bundle.leaf) == len(set(served.certs))
