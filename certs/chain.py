"""From a heap of certificates to leaf, chain and root: who signed whom, and which way up is best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from certs.bundle import Bundle, Contents, Note, Trust
from certs.cert import Cert, Signed
from certs.errors import AmbiguousError, NoCertificateError
from certs.key import Key
from certs.roots import NO_ROOTS, Roots, system_roots

MAX_PATHS = 64
MAX_DEPTH = 16
MAX_CHECKS = 3000  # signatures tried for one leaf; hostile heaps of equal names stop here
WEAK = frozenset({"md2", "md4", "md5", "sha1"})


@dataclass(frozen=True)
class Path:
    """One way up from a leaf, the leaf not in it. ``trust`` says what its top is."""

    certs: tuple[Cert, ...]
    trust: Trust

    @property
    def is_complete(self) -> bool:
        return self.trust is not Trust.UNKNOWN


@dataclass
class _Search:
    pool: Roots
    roots: Roots
    checks: int = MAX_CHECKS
    found: list[Path] = field(default_factory=list)


def find_paths(leaf: Cert, pool: Sequence[Cert], roots: Roots, *, at: datetime | None = None) -> tuple[Path, ...]:
    """Every way up from ``leaf`` through ``pool`` to a root, best first; at least one, which may end in nothing.

    A way is better when it ends in a trusted root that is valid at ``at`` (UTC, now where None), when each certificate on it is valid
    and outlives the leaf, when its signatures are strong, and when it is short.
    """
    moment = at or datetime.now(UTC)
    search = _Search(Roots(pool), roots)
    _climb(leaf, (), search)
    return tuple(sorted(search.found, key=lambda path: _rank(leaf, path, moment)))


def _climb(cert: Cert, below: tuple[Cert, ...], search: _Search) -> None:
    if sum(path.is_complete for path in search.found) >= MAX_PATHS or len(search.found) >= 4 * MAX_PATHS:
        return
    if below and search.roots.find_same(cert) is not None:
        search.found.append(Path(below, Trust.SYSTEM))
        return
    if cert.is_self_issued and cert.is_self_signed:
        search.found.append(_ended(cert, below, search.roots))
        return
    before = len(search.found)
    for issuer in find_issuers(cert, search) if len(below) < MAX_DEPTH else ():
        if not _loops(issuer, below):
            _climb(issuer, (*below, issuer), search)
    if len(search.found) == before:
        search.found.append(Path(below, Trust.UNKNOWN))


def _ended(cert: Cert, below: tuple[Cert, ...], roots: Roots) -> Path:
    if roots.find_same(cert) is not None:
        return Path(below, Trust.SYSTEM)
    return Path(below, Trust.GIVEN if below else Trust.SELF_SIGNED)


def _loops(issuer: Cert, below: tuple[Cert, ...]) -> bool:
    return any(each.raw.subject == issuer.raw.subject and each.raw.spki == issuer.raw.spki for each in below)


def find_issuers(cert: Cert, search: _Search) -> Iterator[Cert]:
    """Certificates whose key made the signature of ``cert``; those whose key identifier matches come first."""
    named = dict.fromkeys([*search.roots.find(cert.raw.issuer), *search.pool.find(cert.raw.issuer)])
    wanted = cert.authority_key_id
    ordered = sorted(named, key=lambda each: wanted is None or each.subject_key_id != wanted)
    for issuer in ordered:
        if issuer == cert:
            continue
        search.checks -= 1
        if search.checks < 0:
            return
        signed = cert.check_signed_by(issuer)
        if signed is Signed.YES or (signed is Signed.UNKNOWN and wanted is not None and issuer.subject_key_id == wanted):
            yield issuer


def _rank(leaf: Cert, path: Path, at: datetime) -> tuple[object, ...]:
    top = path.certs[-1] if path.certs else leaf
    ends = [cert.not_after for cert in path.certs if cert.not_after is not None]
    trusted = path.trust is Trust.SYSTEM
    return (
        not (trusted and is_current(top, at)),
        not trusted,
        not path.is_complete,
        not all(is_current(cert, at) for cert in path.certs),
        not all(leaf.not_after is None or end >= leaf.not_after for end in ends),
        sum(cert.signature_hash in WEAK for cert in path.certs if not cert.is_self_issued),
        len(path.certs),
        -min((end.timestamp() for end in ends), default=0.0),
    )


def is_current(cert: Cert, at: datetime) -> bool:
    """Whether ``at`` lies within its dates; False where a date is malformed."""
    return cert.not_before is not None and cert.not_after is not None and cert.not_before <= at <= cert.not_after


def assemble(
    contents: Contents,
    *,
    roots: Roots | None = None,
    intermediates: Sequence[Cert] = (),
    choose: str = "",
    at: datetime | None = None,
) -> Bundle:
    """Put a heap in order.

    The leaf is the certificate that a key was given for, else the one that signed none of the others. ``choose`` names it where
    several fit: the beginning of its SHA-256, its label, or one of its names. ``roots`` are this machine's where None. Keys that fit
    nothing come back in ``spare_keys``; nothing given is lost.

    Raises:
        NoCertificateError: there is none.
        AmbiguousError: several could be the leaf.

    """
    if not contents.certs:
        raise _nothing(contents)
    known = system_roots() if roots is None else roots
    moment = at or datetime.now(UTC)
    certs = tuple(dict.fromkeys(contents.certs))
    keys = tuple(dict.fromkeys(contents.keys))
    leaf, notes = find_leaf(certs, keys, choose, moment)
    paths = find_paths(leaf, [*certs, *intermediates], known, at=moment)
    bundle = _from_path(leaf, paths[0], known)
    used = {leaf, *bundle.path}
    bundle = replace(
        bundle,
        key=next((key for key in keys if key.fits(leaf)), None),
        spare_keys=tuple(key for key in keys if not key.fits(leaf)),
        others=tuple(cert for cert in certs if cert not in used),
        paths=tuple(path.certs for path in paths[1:] if path.is_complete),
        crls=contents.crls,
        failures=contents.failures,
    )
    return replace(bundle, notes=(*contents.notes, *notes, *_order_notes(contents.certs, bundle)))


def _from_path(leaf: Cert, path: Path, roots: Roots) -> Bundle:
    if path.trust is Trust.SELF_SIGNED:
        return Bundle(leaf, root=leaf, trust=path.trust)
    if not path.is_complete:
        return Bundle(leaf, path.certs)
    if not path.certs:  # the leaf itself is a trusted root
        return Bundle(leaf, root=leaf, trust=path.trust)
    top = path.certs[-1]
    return Bundle(leaf, path.certs[:-1], roots.find_same(top) or top, path.trust)


def find_leaf(certs: tuple[Cert, ...], keys: tuple[Key, ...], choose: str, at: datetime) -> tuple[Cert, list[Note]]:
    """Which of them is the leaf, and what a person should know about the choice.

    Raises:
        AmbiguousError: several could be.

    """
    if choose:
        return _chosen(certs, choose), []
    fitting = [cert for cert in certs if any(key.fits(cert) for key in keys)]
    if fitting:
        return _newest(fitting, at, certs)
    issuers = {cert.raw.issuer for cert in certs if not cert.is_self_issued}
    candidates = [cert for cert in certs if not cert.is_ca and cert.raw.subject not in issuers]
    candidates = candidates or [cert for cert in certs if cert.raw.subject not in issuers] or [certs[0]]
    return _newest(candidates, at, certs)


def _chosen(certs: tuple[Cert, ...], choose: str) -> Cert:
    wanted = choose.strip().lower()
    plain = wanted.replace(":", "")
    exact = [cert for cert in certs if wanted in {cert.label.lower(), cert.name.lower(), *(name.lower() for name in cert.names.dns)}]
    found = exact or [cert for cert in certs if len(plain) >= 6 and cert.sha256.startswith(plain)]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{cert} ({cert.sha256[:12]})" for cert in (found or certs)[:10])
    raise AmbiguousError(f"{choose!r} names {len(found)} of the certificates: {listed}.", hint="Name one by the beginning of its SHA-256.")


def _newest(candidates: list[Cert], at: datetime, certs: tuple[Cert, ...]) -> tuple[Cert, list[Note]]:
    owners = [cert for cert in candidates if not cert.is_ca] or candidates
    purposes = {(cert.raw.subject, frozenset(cert.names.dns)) for cert in owners}
    if len(owners) > 1 and len({cert.raw.spki for cert in owners}) > 1 and len(purposes) > 1:
        listed = "; ".join(f"{cert} ({cert.sha256[:12]})" for cert in owners[:10])
        raise AmbiguousError(
            f"{len(owners)} certificates could be the leaf: {listed}.", hint="Name one with --choose.", candidates=len(owners)
        )
    early = datetime.min.replace(tzinfo=UTC)
    leaf = max(owners, key=lambda cert: (is_current(cert, at), cert.not_after or early, -certs.index(cert)))
    if len(owners) == 1:
        return leaf, []
    rest = ", ".join(f"{cert.sha256[:12]}" for cert in owners if cert is not leaf)
    return leaf, [Note("older_left_out", f"{len(owners)} certificates are for the same; the newest that is valid was taken, not {rest}.")]


def _order_notes(given: tuple[Cert, ...], bundle: Bundle) -> Iterator[Note]:
    twice = len(given) - len(dict.fromkeys(given))
    if twice:
        yield Note("duplicates", f"{twice} certificates were there more than once.")
    if bundle.root in given and bundle.root != bundle.leaf:
        yield Note("root_included", f"The root {bundle.root} is among the files; servers leave it out.")
    want = [cert for cert in bundle.path if cert in given]
    was = [cert for cert in dict.fromkeys(given) if cert in want]
    if want != was:
        yield Note(
            "order_changed", "The certificates were not in the order that TLS wants; they are now: " + " → ".join(map(str, want)) + "."
        )


def _nothing(contents: Contents) -> NoCertificateError | Exception:
    if contents.failures:
        return contents.failures[0]
    seen = "; ".join(dict.fromkeys(note.sentence for note in contents.notes)) or "nothing that is known here"
    return NoCertificateError(f"There is no certificate in it. Found: {seen}", hint="Give the file with the certificate too.")


__all__ = ["NO_ROOTS", "Path", "assemble", "find_leaf", "find_paths", "is_current"]
