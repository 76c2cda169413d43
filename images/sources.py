"""Where Debian packages come from: what this machine itself uses, unless told otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from images.errors import RecipeError

VARIABLE, SNAPSHOTS_VARIABLE = "BOXSHIFT_APT_SOURCES", "BOXSHIFT_SNAPSHOTS"
SNAPSHOTS = "https://snapshot.debian.org/archive"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Sources:
    """apt sources in deb822 or one-line form (empty: mmdebstrap's own default for the suite), and the keyring to trust beside apt's."""

    text: str
    keyring: Path | None


def find_sources(
    suite: str, *, snapshot: str = "", env: Mapping[str, str] = os.environ, etc: Path = Path("/etc/apt"), keyring: Path = KEYRING
) -> Sources:
    """The sources for a Debian suite: the file that ``BOXSHIFT_APT_SOURCES`` names, else this machine's own entries for that suite.

    ``snapshot``: a moment such as 20250601T000000Z: then Debian's archive as it was (``BOXSHIFT_SNAPSHOTS``: a mirror of all its days).

    On a machine of another distribution or release there are none; mmdebstrap then takes the distribution's public mirror.

    Raises:
        RecipeError: the file that the variable names cannot be read.

    """
    trusted = keyring if keyring.exists() else None
    if snapshot:
        return Sources(_render_snapshot(suite, snapshot, env.get(SNAPSHOTS_VARIABLE) or SNAPSHOTS), trusted)
    given = env.get(VARIABLE)
    if given:
        try:
            return Sources(Path(given).read_text(encoding="utf-8"), trusted)
        except OSError as error:
            raise RecipeError(f"The apt sources {given} could not be read: {error.strerror}.", hint=f"Mend or unset {VARIABLE}.") from error
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    parts = [part for path in files if path.is_file() for part in _parse(path, suite)]
    return Sources("\n\n".join(parts) + "\n" if parts else "", trusted)


def _render_snapshot(suite: str, moment: str, mirror: str) -> str:
    """The archive of that moment with its security updates. Its index has long run out, which is what is wanted."""
    stanza = "Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nCheck-Valid-Until: no\n"
    base = mirror.rstrip("/")
    return "\n".join(
        stanza.format(uri=f"{base}/{archive}/{moment}/", suite=name)
        for archive, name in (("debian", suite), ("debian-security", f"{suite}-security"))
    )


def _parse(path: Path, suite: str) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".sources":
        yield from _stanzas(text, suite)
    elif path.suffix == ".list":
        yield from _lines(text, suite)


def _stanzas(text: str, suite: str) -> Iterator[str]:
    """Stanzas of deb822 that hold binary packages of this suite."""
    for stanza in text.split("\n\n"):
        lines = [line for line in stanza.splitlines() if line.strip() and not line.startswith("#")]
        fields = {key.strip().lower(): value.split() for key, _, value in (line.partition(":") for line in lines)}
        suites = fields.get("suites", [])
        if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"] and suites and all(_belongs(one, suite) for one in suites):
            yield "\n".join(lines)


def _lines(text: str, suite: str) -> Iterator[str]:
    """``deb [options] uri suite components`` lines of this suite, as one stanza each."""
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if words[:1] != ["deb"]:
            continue
        options, rest = _options(words[1:])
        if len(rest) >= 3 and _belongs(rest[1], suite):
            fields = {"Types": "deb", "URIs": rest[0], "Suites": rest[1], "Components": " ".join(rest[2:]), **options}
            yield "\n".join(f"{key}: {value}" for key, value in fields.items())


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    if not words or not words[0].startswith("["):
        return {}, words
    end = next((index for index, word in enumerate(words) if word.endswith("]")), len(words) - 1)
    pairs = (word.strip("[]").partition("=") for word in words[: end + 1])
    known = {"signed-by": "Signed-By", "trusted": "Trusted", "arch": "Architectures"}
    return {known[key]: value.replace(",", " ") for key, _, value in pairs if key in known}, words[end + 1 :]


def _belongs(given: str, suite: str) -> bool:
    return given == suite or given in (f"{suite}-updates", f"{suite}-security")
