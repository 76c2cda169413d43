"""What an authority may issue: how deep, and for which names (RFC 5280, 4.2.1.9 and 4.2.1.10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from asn1crypto import x509 as asn1

from certs.cert import ALT_NAMES, MALFORMED, NAME_CONSTRAINTS, Cert, as_address, folded_name, name_parts
from certs.findings import Case, Finding, Measure
from certs.rules.names import is_dns_name

MAX_COMPARISONS = 250_000  # beyond it a client is being attacked
_RARE = frozenset({"other_name", "x400_address", "edi_party_name", "registered_id"})


@dataclass(frozen=True)
class Tree:
    """One name constraint: its kind as asn1crypto names it, and its value (text, network, or a folded distinguished name)."""

    kind: str
    value: object


@dataclass(frozen=True)
class Limits:
    """The name constraints of one authority, and what is malformed about them."""

    permitted: tuple[Tree, ...] = ()
    excluded: tuple[Tree, ...] = ()
    faults: tuple[str, ...] = ()


def check_depth(case: Case) -> Iterator[Finding]:
    """Path lengths; certificates that an authority issued to itself do not count."""
    authorities = list(case.bundle.path[1:])
    for at, cert in enumerate(authorities):
        below = sum(not each.is_self_issued for each in authorities[:at])
        if cert.path_length is not None and below > cert.path_length:
            sentence = f"{cert} allows {cert.path_length} below it in the chain of authorities, and there are {below}."
            yield case.find("path_too_long", sentence, cert)
    depth = sum(not cert.is_self_issued for cert in case.bundle.chain)
    if case.max_depth is not None and depth > case.max_depth:
        yield case.find("path_too_long", f"The chain has {depth} intermediates, and {case.max_depth} are allowed.")


def check_name_constraints(case: Case) -> Iterator[Finding]:
    """The names of every certificate against the constraints of every authority above it."""
    path = case.bundle.path
    left = MAX_COMPARISONS
    for at in range(len(path) - 1, 0, -1):
        limits = read_limits(path[at], case.measure)
        for fault in limits.faults:
            yield case.find("bad_name_constraints", f"The name constraints of {path[at]} are malformed: {fault}.", path[at])
        if not limits.permitted and not limits.excluded:
            continue
        for below, cert in enumerate(path[:at]):
            if below and cert.is_self_issued:
                continue
            left -= _comparisons(cert, limits)
            if left < 0:
                sentence = f"{path[at]} has so many name constraints, and {cert} so many names, that checking would take too long."
                yield case.find("too_many_names", sentence, cert)
                return
            yield from _check_cert(case, cert, path[at], limits)


def _comparisons(cert: Cert, limits: Limits) -> int:
    names = len(cert.names.dns) + len(cert.names.addresses) + len(cert.names.other) + len(name_parts(cert.raw.subject))
    return names * (len(limits.permitted) + len(limits.excluded))


def _check_cert(case: Case, cert: Cert, authority: Cert, limits: Limits) -> Iterator[Finding]:
    for kind, value in names_of(cert):
        excluded = [tree for tree in limits.excluded if tree.kind == kind]
        permitted = [tree for tree in limits.permitted if tree.kind == kind]
        hit = next((tree for tree in excluded if touches(tree, value)), None)
        if hit is not None:
            yield case.find("name_not_permitted", f"{authority} excludes the name {shown(value)} of {cert}.", cert)
        elif permitted and not any(holds(tree, value) for tree in permitted):
            yield case.find("name_not_permitted", f"{authority} does not permit the name {shown(value)} of {cert}.", cert)


def read_limits(cert: Cert, measure: Measure = Measure.USUAL) -> Limits:
    """An authority's name constraints; empty where it has none."""
    found = cert.extension(NAME_CONSTRAINTS)
    if found is None:
        return Limits()
    faults: list[str] = []
    permitted = tuple(_read_trees(found["permitted_subtrees"], faults, measure))
    excluded = tuple(_read_trees(found["excluded_subtrees"], faults, measure))
    if not permitted and not excluded and not faults:
        faults.append("they are empty")
    return Limits(permitted, excluded, tuple(faults))


def _read_trees(subtrees: asn1.GeneralSubtrees, faults: list[str], measure: Measure) -> Iterator[Tree]:
    try:
        for subtree in subtrees or ():
            yield _read_tree(subtree["base"], faults, measure)
    except MALFORMED as error:
        faults.append(str(error))


def _read_tree(name: asn1.GeneralName, faults: list[str], measure: Measure) -> Tree:
    kind = str(name.name)
    if kind == "ip_address":
        network = _read_network(name.chosen.contents)
        if network is None:
            faults.append(f"{name.chosen.contents.hex()} is no network")
        return Tree(kind, network)
    if kind == "directory_name":
        return Tree(kind, folded_name(name.chosen.chosen.dump()))
    if kind in _RARE:
        return Tree(kind, None)
    text = name.chosen.contents.decode("latin-1").lower()
    if kind == "dns_name" and text and not is_dns_name(text) and (measure is not Measure.USUAL or not is_dns_name(text[1:])):
        faults.append(f"{text!r} is no domain")
    if kind == "rfc822_name" and text.count("@") > 1:
        faults.append(f"{text!r} is no mail address")
    return Tree(kind, _mailbox(text) if kind == "rfc822_name" else text)


def _read_network(raw: bytes) -> IPv4Network | IPv6Network | None:
    if len(raw) not in {8, 32}:
        return None
    half = len(raw) // 2
    mask = int.from_bytes(raw[half:], "big")
    bits = half * 8
    ones = mask.bit_count()
    if mask != ((1 << ones) - 1) << (bits - ones):
        return None
    return ip_network((raw[:half], ones), strict=False)


def names_of(cert: Cert) -> Iterator[tuple[str, object]]:
    """Every name that constraints apply to: alternative names, the subject, and its mail addresses where there are no others."""
    found = cert.extension(ALT_NAMES)
    kinds = set()
    for name in found if found is not None else ():
        try:
            kinds.add(name.name)
            yield str(name.name), _value_of(name)
        except MALFORMED:
            yield str(name.name), None
    if cert.raw.subject != b"\x30\x00":
        yield "directory_name", folded_name(cert.raw.subject)
    if "rfc822_name" not in kinds:
        yield from (("rfc822_name", _mailbox(value)) for kind, value in name_parts(cert.raw.subject) if kind == "email_address")


def _value_of(name: asn1.GeneralName) -> object:
    if name.name == "ip_address":
        raw = name.chosen.contents
        return as_address(str(name.native)) if len(raw) in {4, 16} else None
    if name.name == "directory_name":
        return folded_name(name.chosen.chosen.dump())
    if name.name == "rfc822_name":
        return _mailbox(name.chosen.contents.decode("latin-1"))
    if name.name == "uniform_resource_identifier":
        return _host_of(name.chosen.contents.decode("latin-1"))
    return name.chosen.contents.decode("latin-1").lower() if name.name == "dns_name" else None


def _mailbox(text: str) -> str:
    """The part before the @ keeps its case, the host does not."""
    local, at, host = text.rpartition("@")
    return f"{local}{at}{host.lower()}"


def _host_of(uri: str) -> str:
    rest = uri.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return rest.partition(":")[0].lower()


def holds(tree: Tree, value: object) -> bool:
    """Whether the whole of ``value`` lies within the tree. A name that is not well-formed lies in none."""
    if tree.kind == "ip_address":
        return value is not None and isinstance(tree.value, IPv4Network | IPv6Network) and value in tree.value
    if tree.kind == "directory_name":
        return isinstance(value, tuple) and isinstance(tree.value, tuple) and value[: len(tree.value)] == tree.value
    if not isinstance(value, str) or not isinstance(tree.value, str):
        return False
    if tree.kind == "rfc822_name":
        return _mail_within(tree.value, value)
    if tree.kind == "dns_name":
        return is_dns_name(value, wildcard=True) and _dns_within(tree.value, value.removeprefix("*."))
    return _host_within(tree.value, value)


def touches(tree: Tree, value: object) -> bool:
    """Whether any part of ``value`` lies within the tree: a wildcard may stand for an excluded name, and a malformed one for any."""
    if tree.kind in _RARE or value is None:
        return True
    if tree.kind == "dns_name" and isinstance(value, str) and isinstance(tree.value, str) and value.startswith("*."):
        below = tree.value.removesuffix("." + value[2:])
        return _dns_within(tree.value, value[2:]) or (below != tree.value and bool(below))
    if tree.kind == "dns_name" and isinstance(value, str) and isinstance(tree.value, str):
        return _dns_within(tree.value, value)
    return holds(tree, value)


def _dns_within(tree: str, name: str) -> bool:
    base = tree.lstrip(".")
    return not base or name == base or name.endswith("." + base)


def _host_within(tree: str, host: str) -> bool:
    return host.endswith(tree) if tree.startswith(".") else host == tree


def _mail_within(tree: str, value: str) -> bool:
    if value.count("@") != 1:
        return False
    if "@" in tree:
        return value == tree
    host = value.rpartition("@")[2]
    return host.endswith(tree) if tree.startswith(".") else host == tree


def shown(value: object) -> str:
    """A name for people."""
    if isinstance(value, tuple):
        return ", ".join(f"{kind}={text}" for kind, text in value) or "(empty)"
    return str(value) if value is not None else "of a rare or malformed kind"
