"""Names: does the certificate cover the host, and are its names well-formed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

from certs.cert import ALT_NAMES, Cert, as_address, name_parts
from certs.findings import Case, Finding, Severity

_ADDRESS = re.compile(r"(?:0x)?[0-9a-f]*[0-9:][0-9a-f:.]*", re.IGNORECASE)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
# Enough of the public suffix list to catch what is ever seen; the whole list changes weekly and has 10,000 rows.
_SECOND_LEVEL = frozenset({"co", "com", "org", "net", "gov", "edu", "ac", "or", "ne", "gob", "nom", "ltd", "plc"})

# Domains under which strangers get names of their own.
_SHARED = frozenset(
    {
        "s3.amazonaws.com",
        "compute.amazonaws.com",
        "elb.amazonaws.com",
        "cloudfront.net",
        "github.io",
        "gitlab.io",
        "herokuapp.com",
        "azurewebsites.net",
        "cloudapp.net",
        "appspot.com",
        "blogspot.com",
        "web.app",
        "firebaseapp.com",
        "netlify.app",
        "vercel.app",
        "pages.dev",
        "workers.dev",
        "ngrok.io",
        "duckdns.org",
    }
)


def check_names(case: Case) -> Iterator[Finding]:
    """The leaf's names against the hosts asked for, and against the rules for names."""
    leaf = case.bundle.leaf
    names = leaf.names
    if not names and leaf.find_extension(ALT_NAMES) is None and not (case.client or case.is_authority):
        only = f"; only its common name says {leaf.common_name}" if leaf.common_name else ""
        yield case.find("no_alt_names", f"{leaf} has no alternative names{only}.", leaf)
    for host in case.hostnames:
        if not covers(leaf, host):
            yield case.find("hostname_mismatch", _mismatch_sentence(leaf, host), leaf)
    yield from _check_each(case, leaf)
    yield from _check_common_name(case, leaf)


def covers(cert: Cert, host: str) -> bool:
    """Whether clients accept the certificate for this host name or IP address: RFC 6125, a wildcard for one whole first label only."""
    address = as_address(host)
    if address is not None:
        return any(as_address(each) == address for each in cert.names.addresses)
    wanted = ascii_name(host)
    return any(name_matches(name.lower(), wanted) for name in cert.names.dns)


def name_matches(pattern: str, host: str) -> bool:
    """Whether an alternative name covers a host name; both in lower-case ASCII."""
    if not is_dns_name(pattern, wildcard=True):
        return False
    if not pattern.startswith("*."):
        return pattern == host
    _, _, rest = host.partition(".")
    return bool(rest) and rest == pattern[2:] and not host.startswith(".")


def ascii_name(host: str) -> str:
    """A host name as certificates write it: lower case, no last dot, letters beyond ASCII as punycode."""
    plain = host.strip().rstrip(".").lower()
    try:
        return plain if plain.isascii() else plain.encode("idna").decode()
    except UnicodeError:
        return plain


def is_dns_name(name: str, *, wildcard: bool = False) -> bool:
    """Whether it is a well-formed host name; with ``wildcard`` also ``*.`` in front of at least one label."""
    plain = name.removeprefix("*.") if wildcard and name.startswith("*.") else name
    return 0 < len(plain) <= 253 and all(_LABEL.fullmatch(label) for label in plain.split("."))


def _mismatch_sentence(leaf: Cert, host: str) -> str:
    near = get_close_matches(ascii_name(host), [name.lower() for name in leaf.names.dns[:500]], n=1, cutoff=0.5)
    _, _, parent = ascii_name(host).partition(".")
    if as_address(host) is not None and not leaf.names.addresses:
        why = "it names no IP address"
    elif any(name.startswith("*.") and parent.endswith("." + name[2:]) for name in leaf.names.dns):
        why = "a wildcard covers one level only"
    elif f"*.{ascii_name(host)}" in leaf.names.dns:
        why = "a wildcard does not cover the name above it"
    else:
        why = f"the closest name is {near[0]}" if near else "none of its names is close"
    listed = str(leaf.names)
    return f"{leaf} does not cover {host}: {why}. It is for: {listed if len(listed) < 300 else listed[:300] + ' …'}."


def _check_each(case: Case, leaf: Cert) -> Iterator[Finding]:
    for name in leaf.names.dns:
        if name == "*" or (name.startswith("*.") and _is_public_suffix(name[2:].lower())):
            yield case.find("wildcard_too_wide", f"{leaf} has the alternative name {name!r}, which covers everybody's names.", leaf)
        elif not is_dns_name(name, wildcard=True) or as_address(name) is not None:
            yield case.find("bad_alt_name", f"{leaf} has the alternative name {name!r}, which is no host name.", leaf)
        elif "*" in name.removeprefix("*."):
            yield case.find("bad_alt_name", f"{leaf} has a wildcard in an odd place: {name!r}.", leaf)
        elif "_" in name and not case.is_usual:
            yield case.find("bad_alt_name", f"{leaf} has the alternative name {name!r}; host names have no underscore.", leaf)
    for address in leaf.names.addresses:
        if as_address(address) is None:
            yield case.find("bad_alt_name", f"{leaf} has {address!r} for an IP address, which is none.", leaf)
    for other in leaf.names.other:
        kind, _, text = other.partition(":")
        if kind == "rfc822_name" and text.count("@") != 1:
            yield case.find("bad_alt_name", f"{leaf} has {text!r} for a mail address, which is none.", leaf)


def _is_public_suffix(domain: str) -> bool:
    labels = domain.split(".")
    return domain in _SHARED or len(labels) == 1 or (len(labels) == 2 and labels[0] in _SECOND_LEVEL and len(labels[1]) == 2)


def _check_common_name(case: Case, leaf: Cert) -> Iterator[Finding]:
    """CA/Browser Forum 7.1.4.3: a common name repeats an alternative name, letter by letter; an address in its usual form."""
    if not leaf.names or case.client:
        return
    for kind, value in name_parts(leaf.raw.subject):
        if kind == "common_name" and value not in leaf.names.dns and value not in leaf.names.addresses:
            # No client can mix up a common name with alternative names of another kind, nor a domain with its own wildcard.
            same_kind = leaf.names.addresses if _ADDRESS.fullmatch(value) else [name for name in leaf.names.dns if name != f"*.{value}"]
            sentence = f"The common name {value} of {leaf} is not among its alternative names as written."
            yield case.find("common_name_differs", sentence, leaf, severity=None if same_kind else Severity.INFO)


__all__ = ["ascii_name", "check_names", "covers", "is_dns_name", "name_matches"]
