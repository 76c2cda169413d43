"""Load an image over https: only with a checksum, only from servers that prove who they are."""

from __future__ import annotations

import hashlib
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from images.import_errors import ChecksumError, DownloadError, SourceError
from images.manifest import DIGESTS, parse_algorithm
from images.span import Span, hash_span
from images.store import no_space
from kit.progress import Progress, Silent

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS, READ_SECONDS = 20.0, 60.0
REDIRECTS = 5


@dataclass(frozen=True)
class Checksum:
    """``algorithm`` as hashlib has it, ``digest`` in lower-case hex."""

    algorithm: str
    digest: str


def parse_checksum(text: str) -> Checksum:
    """``sha256:HEX``, ``sha512:HEX``, or the hex alone, whose length tells which.

    Raises:
        SourceError: it is none, or one that can be forged.

    """
    word, _, digest = text.strip().rpartition(":")
    algorithm = parse_algorithm(word) if word else next((name for name, length in DIGESTS.items() if length == len(digest)), "")
    if algorithm in ("", "sha1") or not re.fullmatch(r"[0-9A-Fa-f]+", digest) or len(digest) != DIGESTS.get(algorithm):
        raise SourceError("The checksum is none that is known.", hint="Give sha256:HEX, sha384:HEX or sha512:HEX.")
    return Checksum(algorithm, digest.lower())


def is_address(source: str) -> bool:
    """True for what looks like an address and not like a file."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source))


def parse_address(source: str) -> str:
    """An https address without credentials.

    Raises:
        SourceError: it is of another kind, names no host, or holds a password.

    """
    try:
        parts = urlsplit(source)
        whole = parts.scheme.lower() == "https" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole, parts = False, urlsplit("")
    if not whole:
        raise SourceError("Images are loaded over https only.", hint="Load it another way and give the file.")
    if parts.username or parts.password:
        raise SourceError(
            "The address holds a user name or password, which others could see.", hint="Load it another way and give the file."
        )
    return source


def without_query(source: str) -> str:
    """The address as it may be stored and shown: what stands after ``?`` often lets its holder in."""
    return source.partition("?")[0].partition("#")[0] if is_address(source) else source


def fetch(source: str, target: Path, checksum: Checksum, *, most: int, ca: Path | None = None, progress: Progress | None = None) -> Span:
    """Load it into ``target``. ``most`` bytes; ``ca``: the authority of a server whose certificate is not publicly trusted.

    Raises:
        SourceError: the address is not one to load from.
        DownloadError: nothing answers there, it refuses, or it breaks off.
        ChecksumError: what came is something else.
        SpaceError: no room left.

    """
    import httpx

    address, digest = parse_address(source), hashlib.new(checksum.algorithm)
    shown, done, where = progress or Silent(), 0, without_query(source)
    try:
        with target.open("xb") as sink, _open(ca) as client, client.stream("GET", address) as answer:
            _verify_answer(answer.status_code, str(answer.url), where)
            total = _length(answer.headers.get("content-length", ""))
            _verify_length(total or 0, most, where)
            for piece in answer.iter_raw():
                done += len(piece)
                _verify_length(done, most, where)
                digest.update(piece)
                sink.write(piece)
                shown.update("loading", done, total)
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        raise DownloadError(
            f"{where} could not be loaded: {error or type(error).__name__}", hint="Try again; see whether it opens in a browser."
        ) from error
    except OSError as error:
        raise no_space(target, error) from error
    _compare(digest.hexdigest(), checksum, where)
    return Span(target, 0, done)


def verify_checksum(span: Span, checksum: Checksum, *, progress: Progress | None = None) -> None:
    """Compare a file with its checksum.

    Raises:
        ChecksumError: it is another one.

    """
    shown, done = progress or Silent(), 0

    def seen(count: int) -> None:
        nonlocal done
        done += count
        shown.update("checking the checksum", done, span.length)

    _compare(hash_span(span, checksum.algorithm, seen=seen)[0], checksum, str(span.path))


def _open(ca: Path | None) -> httpx.Client:
    import httpx

    try:
        trusted = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"{ca} holds no certificates that can be read.", hint="--ca takes a PEM file.") from error
    return httpx.Client(
        verify=trusted,
        follow_redirects=True,
        max_redirects=REDIRECTS,
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        headers={"Accept-Encoding": "identity"},
        event_hooks={"request": [_refuse_plain]},
    )


def _refuse_plain(request: httpx.Request) -> None:
    """Also an https address may send us on to a plain one."""
    if request.url.scheme != "https":
        raise DownloadError("The server sends on to an address that is not https.", hint="Load it another way and give the file.")


def _verify_answer(status: int, url: str, where: str) -> None:
    if status != 200:
        raise DownloadError(
            f"{where} answers with status {status}.",
            hint="See whether the address is right, and whether it needs a login.",
            url=without_query(url),
        )


def _verify_length(length: int, most: int, where: str) -> None:
    if length > most:
        raise DownloadError(f"{where} is larger than {most >> 30} GiB.", hint="If that is right, allow more with --max-size.")


def _length(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _compare(digest: str, checksum: Checksum, where: str) -> None:
    if digest != checksum.digest:
        raise ChecksumError(
            f"{where} is not the file whose checksum was given.",
            hint="Do not use it; compare the checksum with the origin's.",
            digest=digest,
        )
