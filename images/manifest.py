"""The manifest of a bundle: which files belong to it, with their digests. Checked both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from images.archive import Bundle, parse_member_name
from images.import_errors import ManifestError
from images.span import Span, hash_span
from kit.findings import Finding, Severity
from kit.progress import Progress, Silent

LONGEST = 1 << 20
DIGESTS = {"sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
_LINE = re.compile(r"(?P<algorithm>[A-Za-z0-9-]+)\s*\((?P<name>.+)\)\s*=\s*(?P<digest>[0-9A-Fa-f]+)")


@dataclass(frozen=True)
class Line:
    """``algorithm`` as hashlib has it; ``digest`` in lower-case hex."""

    name: str
    algorithm: str
    digest: str


def parse_manifest(raw: bytes) -> tuple[Line, ...]:
    """The lines of a manifest: ``SHA256(name)= hex`` in all its spellings, from SHA-1 to SHA-512.

    Raises:
        ManifestError: a line that is none, a digest that is not secure or of the wrong length, one file with two digests.
        HostileSourceError: it names a file that cannot lie in a bundle.

    """
    if len(raw) > LONGEST:
        raise ManifestError("The manifest is absurdly long.")
    lines: dict[tuple[str, str], Line] = {}
    for number, text in enumerate(raw.decode("utf-8-sig", errors="replace").splitlines(), 1):
        if not text.strip():
            continue
        line = _parse_line(text.strip(), number)
        known = lines.setdefault((line.name, line.algorithm), line)
        if known != line:
            raise ManifestError(f"The manifest has two digests for {line.name!r}.")
    return tuple(lines.values())


def parse_algorithm(word: str) -> str:
    """``SHA256``, ``sha-256`` or ``SHA2-256`` as hashlib has it; empty for what is not secure or not known."""
    plain = re.sub(r"^sha2-", "sha", word.lower()).replace("-", "")
    return plain if plain in DIGESTS else ""


def _parse_line(text: str, number: int) -> Line:
    match = _LINE.fullmatch(text)
    algorithm = parse_algorithm(match["algorithm"]) if match else ""
    if match is None or not algorithm:
        raise ManifestError(f"Line {number} of the manifest is no digest that is known.", hint="SHA-1, SHA-256, SHA-384 and SHA-512 are.")
    if len(match["digest"]) != DIGESTS[algorithm]:
        raise ManifestError(f"The digest in line {number} of the manifest has the wrong length.")
    return Line(parse_member_name(match["name"].strip()), algorithm, match["digest"].lower())


def find_manifest(bundle: Bundle, descriptor: str, suffix: str = ".mf") -> tuple[str, Span] | None:
    """The manifest (or certificate) that belongs to the descriptor: of the same name, else the only one.

    Raises:
        ManifestError: there are several and none of that name.

    """
    wanted = str(PurePosixPath(descriptor).with_suffix(suffix))
    span = bundle.find(wanted)
    if span is not None:
        return wanted, span
    others = [name for name in bundle.names if name.lower().endswith(suffix) and "/" not in name]
    if len(others) > 1:
        raise ManifestError(f"The bundle has several {suffix} files: {', '.join(others[:5])}.", hint=f"Keep the one named {wanted}.")
    found = bundle.find(others[0]) if others else None
    return (others[0], found) if found is not None else None


def verify_listed(lines: Iterable[Line], needed: Iterable[str]) -> None:
    """Every file that the machine is made of must be listed.

    Raises:
        ManifestError: one is not.

    """
    listed = {line.name for line in lines}
    missing = [name for name in needed if name not in listed]
    if missing:
        raise ManifestError(
            f"The manifest does not list {', '.join(map(repr, missing[:5]))}: whether that is what was shipped cannot be told.",
            hint="Ask for the whole bundle.",
        )


def verify_digests(bundle: Bundle, lines: tuple[Line, ...], *, progress: Progress | None = None) -> None:
    """Every listed file must be there, with its digests.

    Raises:
        ManifestError: one is missing, or another one.

    """
    shown = progress or Silent()
    found = {name: bundle.find(name) for name in dict.fromkeys(line.name for line in lines)}
    missing = [name for name, span in found.items() if span is None]
    if missing:
        raise ManifestError(f"The manifest lists {', '.join(map(repr, missing[:5]))}, which is not in the bundle.", hint="Load it again.")
    spans = {name: span for name, span in found.items() if span is not None}
    total, done = sum(span.length for span in spans.values()), 0

    def seen(count: int) -> None:
        nonlocal done
        done += count
        shown.update("checking the manifest", done, total)

    for name, span in spans.items():
        wanted = {line.algorithm: line.digest for line in lines if line.name == name}
        digests = hash_span(span, *wanted, seen=seen)
        wrong = [algorithm for (algorithm, digest), real in zip(wanted.items(), digests, strict=True) if digest != real]
        if wrong:
            raise ManifestError(
                f"{name!r} is not what the manifest says ({wrong[0].upper()}): it was damaged or changed.",
                hint="Load it again.",
                member=name,
            )


def check_manifest(lines: tuple[Line, ...] | None, bundle: Bundle, needed: Iterable[str]) -> Iterator[Finding]:
    """What a person should know although nothing is wrong: no manifest, only SHA-1, files that nobody speaks of."""
    if lines is None:
        yield Finding(
            "ovf.no-manifest",
            Severity.UNVERIFIED,
            "The bundle has no manifest: whether its files are what was shipped cannot be told.",
            "Compare the checksum of the whole file with the origin's: --checksum.",
        )
        return
    weak = sorted({line.name for line in lines} - {line.name for line in lines if line.algorithm != "sha1"})
    if weak:
        yield Finding(
            "ovf.weak-manifest",
            Severity.WARNING,
            f"The manifest has only SHA-1 for {', '.join(weak[:3])}: it shows damage, not forgery.",
            "Compare the checksum of the whole file with the origin's: --checksum.",
        )
    known = {line.name for line in lines} | set(needed)
    stray = [name for name in bundle.names if name not in known and not name.lower().endswith((".mf", ".cert"))]
    if stray:
        yield Finding(
            "ovf.stray-file", Severity.NOTE, f"The bundle holds files that nothing refers to; they are left out: {', '.join(stray[:5])}."
        )
