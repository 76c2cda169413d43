"""The vendor's update server as a person uses it: a download key goes into a form, and links to packages come back.

A package is offered until it was downloaded once. So nothing that arrived whole is ever thrown away: what a crash left behind is looked at
first, and taken where it is a whole package.
"""

from __future__ import annotations

import os
import re
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from kit.errors import FailedError, RejectedError, UnexpectedError, UnreachableError, UsageError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances.bomgar.forms import Entry, View, fill
from migrate.appliances.bomgar.pages.updates import read_package_file
from migrate.appliances.bomgar.parse import parse_page
from migrate.appliances.bomgar.words import Term, load_words
from migrate.appliances.errors import PackageRefusedError
from migrate.transfer_folder import LIST, PackageEntry, Transfer, digest_file, read_transfer, verify_file, write_transfer

TIMEOUT = 60.0
LARGEST_PAGE = 4 * 2**20  # bytes
LARGEST_PACKAGE = 8 * 2**30  # bytes
PART = ".part"
VERSION = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True)
class Goods:
    """One package on offer: ``file`` is the name that it is kept under; ``url`` leads to it and holds the key."""

    file: str
    url: Secret


@dataclass(frozen=True)
class Fetched:
    """What a fetch left: the folder's list, and which of its files came now."""

    transfer: Transfer
    new: tuple[str, ...]


class UpdateShop:
    """One update server. ``roots``: a PEM file to trust instead of the system's roots. To be closed after use."""

    def __init__(self, url: str, roots: Path | None = None) -> None:
        import ssl

        self._url = verify_url(url)
        try:
            trust = ssl.create_default_context(cafile=str(roots) if roots else None)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{roots} holds no root certificate in PEM form.") from error
        self._client = httpx.Client(verify=trust, timeout=TIMEOUT, trust_env=True, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def read_goods(self, key: Secret) -> tuple[Goods, ...]:
        """What the box that made this key can still get, in the page's order.

        Raises:
            UsageError: the key is empty.
            RejectedError: the server does not take the key.
            UnexpectedError: its page is not in a known form.

        """
        if not key.reveal().strip():
            raise UsageError("The download key is empty.", hint="boxshift packages key reads it from the box.")
        words = load_words()
        first = View(parse_page(self._page(self._url), path=self._url), words)
        form, button = first.need_button(Term.CHECK_FOR_UPDATES)
        asked = fill(form, (Entry(first.need_field(form, Term.DOWNLOAD_KEY), key),), press=button)
        pairs = {name: value.reveal() if isinstance(value, Secret) else str(value) for name, value in asked.pairs}
        after = parse_page(self._page(urljoin(self._url, asked.path or ""), asked.method, pairs), path=self._url)
        known = {link.url for link in first.page.links}
        found = {link.url: link for link in after.links if link.url not in known and VERSION.search(link.text)}
        return tuple(Goods(_name(link.url, link.text), Secret(self._own(link.url))) for link in found.values())

    def fetch(self, key: Secret, folder: Path, progress: Progress) -> Fetched:
        """Everything on offer, into ``folder``, with a list. May be repeated: what is there is not asked for again.

        Raises:
            FailedError: a package did not come whole. What came before it is kept, and listed.

        """
        left = {entry.file: entry for entry in _left_behind(folder)}
        entries = {entry.file: entry for entry in _listed(folder)} | left
        new = list(left)
        goods = [one for one in self.read_goods(key) if one.file not in entries]
        for number, one in enumerate(goods):
            progress.update(one.file, number, len(goods))
            part = folder / f"{one.file}{PART}"
            self._take(one, part, progress)
            entry = _judge(part)
            entries[entry.file] = entry
            # Listed before it has its name: a file that has its name and is in no list would never be asked for again.
            write_transfer(folder, list(entries.values()), self._url, time.time())
            part.replace(folder / entry.file)
            new.append(entry.file)
        return Fetched(write_transfer(folder, list(entries.values()), self._url, time.time()), tuple(new))

    def _take(self, goods: Goods, target: Path, progress: Progress) -> None:
        with _translated(self._url), self._client.stream("GET", goods.url.reveal()) as response:
            if response.status_code != httpx.codes.OK:
                raise RejectedError(f"{self._url} answers {response.status_code} for {goods.file}.", hint="Is the key still valid?")
            total = int(response.headers.get("Content-Length") or 0)
            size = 0
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as sink:
                for chunk in response.iter_bytes(2**20):
                    size += len(chunk)
                    if size > LARGEST_PACKAGE:
                        raise UnexpectedError(f"{goods.file} is larger than a package can be.")
                    sink.write(chunk)
                    progress.update(goods.file, size, total or None)
                sink.flush()
                os.fsync(sink.fileno())
        if total and size != total:
            raise FailedError(f"{goods.file} came as {size} of {total} bytes.", hint="The same command tries again.")

    def _page(self, url: str, method: str = "GET", pairs: dict[str, str] | None = None) -> bytes:
        sent = {"params": pairs} if method == "GET" else {"data": pairs}
        with _translated(self._url), self._client.stream(method, self._own(url), **sent) as response:  # type: ignore[arg-type]
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > LARGEST_PAGE:
                    raise UnexpectedError(f"The page of {self._url} is larger than such a page can be.")
        if response.status_code in {400, 401, 403}:
            raise RejectedError(
                f"{self._url} does not take the download key: {_first_line(content)}",
                hint="A key is valid for 2,400 minutes, and not at all where the clock of its box is wrong. Make a new one.",
            )
        if response.status_code != httpx.codes.OK:
            raise UnexpectedError(f"{self._url} answers {response.status_code}.")
        return content

    def _own(self, url: str) -> str:
        """On this server and no other: the key is in the address."""
        whole = urljoin(self._url, url)
        if urlsplit(whole)[:2] != urlsplit(self._url)[:2]:
            raise UnexpectedError(f"{self._url} leads to another server, which is not followed with the key.")
        return whole


def verify_url(url: str) -> str:
    """The address of an update server: TLS, unless it is of this very machine. Raises UsageError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError("The update server is not an address such as https://updates.example.com.")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise UsageError("The update server is named without TLS, and the download key would be sent in clear.", hint="Use https://.")
    return url if parts.path else f"{url}/"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(url: str, text: str) -> str:
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".-")
    if not VERSION.search(safe):  # an address that tells nothing; the link's text does
        safe = re.sub(r"[^A-Za-z0-9._-]", "-", text).strip(".-")
    return safe[:200]


def _listed(folder: Path) -> tuple[PackageEntry, ...]:
    """Packages of an earlier fetch that are there as they came."""
    if not (folder / LIST).exists():
        return ()
    entries = read_transfer(folder).packages
    for entry in entries:
        verify_file(folder, entry)
    return entries


def _left_behind(folder: Path) -> Iterator[PackageEntry]:
    """What came whole and had not got its name when an earlier fetch was cut off: the server does not offer it again."""
    for path in sorted(folder.glob(f"*{PART}")):
        try:
            yield _keep(path)
        except PackageRefusedError:
            path.unlink()


def _keep(part: Path) -> PackageEntry:
    """Give a whole package its name. Raises PackageRefusedError where it is none."""
    entry = _judge(part)
    part.replace(part.with_name(entry.file))
    return entry


def _judge(part: Path) -> PackageEntry:
    """What a list says of a package that has come. Raises PackageRefusedError where it is none."""
    package = read_package_file(part)
    name = part.name.removesuffix(PART)
    try:
        with zipfile.ZipFile(part) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError) as error:
        raise PackageRefusedError(f"The package {name} is not whole: {error}.") from error
    if damaged is not None:
        raise PackageRefusedError(f"The package {name} is damaged at {damaged!r}.")
    version = package.version
    return PackageEntry(
        file=name,
        kind=package.kind,
        version=version.version,
        build=version.build,
        size=part.stat().st_size,
        sha256=digest_file(part),
    )


def _first_line(content: bytes) -> str:
    return (content.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[0][:200]


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Foreign errors in our words, without the address, which holds the key."""
    try:
        yield
    except httpx.HTTPError as error:
        raise UnreachableError(f"{where} cannot be reached: {type(error).__name__}.", hint="Can this machine go out?") from None
    except OSError as error:
        raise FailedError(
            f"A package could not be written: {error.strerror}.", hint="Free space, then the same command goes on."
        ) from error
