"""HTTP to one console of one box. Foreign errors are translated here and nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from kit.errors import FailedError, UnexpectedError, UnreachableError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances.contract import Endpoint
from migrate.appliances.errors import BusyError
from migrate.appliances.pinned import Pin, make_context
from migrate.appliances.refusals import Place

LARGEST_PAGE = 64 * 2**20  # bytes kept in memory; the largest thing read so is a listing of sessions
_REDIRECTS = {301, 302, 303, 307, 308}
_BUSY = {502, 503, 504}
_MOST_REDIRECTS = 10


@dataclass(frozen=True)
class Upload:
    """A file in a form: its content (bytes, or a path that is streamed) and the name it is given."""

    content: bytes | Path
    filename: str

    def __repr__(self) -> str:
        return f"Upload({self.filename!r})"


Value = str | Secret | Upload


@dataclass(frozen=True)
class Request:
    """What is sent. ``path`` may be a path or a URL of the same box; ``pairs`` are form fields in order.

    ``closing`` asks for the connection to be closed after the answer. ``seconds`` is how long the box may think before it answers;
    ``reach``: how long a connection may take, whatever the patience; None: with it.
    """

    method: str
    path: str
    pairs: tuple[tuple[str, Value], ...] = ()
    multipart: bool = False
    json: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    closing: bool = False
    seconds: float = 60.0
    reach: float | None = None


@dataclass(frozen=True)
class Answer:
    """What came back. ``path`` is where it came from after redirects; times in Unix seconds of this machine."""

    status: int
    path: str
    headers: httpx.Headers = field(repr=False)
    content: bytes = field(repr=False)
    asked_at: float
    answered_at: float

    @property
    def type(self) -> str:
        """The media type without its parameters."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def date(self) -> datetime | None:
        """The Date header; None where it is missing or unreadable."""
        with contextlib.suppress(TypeError, ValueError):
            return parsedate_to_datetime(self.headers.get("date", ""))
        return None


@dataclass(frozen=True)
class Saved:
    """A body written to disk: its length in bytes and SHA-256."""

    size: int
    sha256: str


class BoxClient:
    """Requests to one box, always the same one: the key is pinned, other hosts are refused, no proxy and no environment is used."""

    def __init__(self, endpoint: Endpoint, pin: Pin, *, language: str = "en", patience: float = 1.0) -> None:
        self.endpoint = endpoint
        self.pin = pin
        self._patience = patience
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._base = f"https://{host}:{endpoint.port}"
        self._client = httpx.Client(
            verify=make_context(pin),
            trust_env=False,
            follow_redirects=False,
            headers={"Accept-Language": language, "User-Agent": "boxshift"},
        )

    @property
    def where(self) -> str:
        """Address and port, for sentences."""
        return f"{self.endpoint.host}:{self.endpoint.port}"

    @property
    def place(self) -> Place:
        """The box, as refused logins are remembered for it."""
        return Place(self.endpoint.host, self.endpoint.port, self.pin.seen or "")

    def send(self, request: Request) -> Answer:
        """Send, follow redirects within the box, read the whole answer.

        Raises:
            UnreachableError: no connection, no answer in time, or it broke off; BusyError for 502, 503 and 504.
            WrongKeyError: another key is served; nothing was sent.
            UnexpectedError: a redirect that leads away, or an answer that is too large.

        """
        for _ in range(_MOST_REDIRECTS):
            with self._stream(request) as (response, asked):
                if not _redirects(response):
                    return self._whole(response, asked)
                request = self._redirected(request, response)
        raise UnexpectedError(f"{self.where} redirects in a circle at {request.path}.")

    def save(self, request: Request, target: Path, *, progress: Progress, label: str) -> Saved | Answer:
        """Send, and stream a file that comes back to ``target`` (whole or not at all, mode 0600).

        A page that comes back instead of a file, or an error, is returned as an Answer.

        Raises:
            FailedError: the disk is full or the folder cannot be written.
            UnreachableError, WrongKeyError, UnexpectedError: as for send.

        """
        for _ in range(_MOST_REDIRECTS):
            with self._stream(request) as (response, asked):
                if _redirects(response):
                    request = self._redirected(request, response)
                    continue
                if response.status_code != 200 or _is_page(response):
                    return self._whole(response, asked)
                return self._saved(response, target, progress, label)
        raise UnexpectedError(f"{self.where} redirects in a circle at {request.path}.")

    def _saved(self, response: httpx.Response, target: Path, progress: Progress, label: str) -> Saved:
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdigit() and "content-encoding" not in response.headers else None
        with _new_file(target) as sink:
            saved = _pour(response, sink, progress, label, total)
            if total is not None and saved.size != total:
                raise UnreachableError(f"{self.where} broke off after {saved.size} of {total} bytes of {label}.")
        return saved

    def forget_session(self) -> None:
        """Drop the cookies."""
        self._client.cookies.clear()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextlib.contextmanager
    def _stream(self, request: Request) -> Iterator[tuple[httpx.Response, float]]:
        with contextlib.ExitStack() as files:
            built = self._build(request, files)
            asked = time.time()
            with _translated(self.where, request.seconds * self._patience):
                response = self._client.send(built, stream=True)
                try:
                    if response.status_code in _BUSY:
                        raise BusyError(f"{self.where} is busy: it answers {response.status_code} for {urlsplit(request.path).path}.")
                    yield response, asked
                finally:
                    response.close()

    def _build(self, request: Request, files: contextlib.ExitStack) -> httpx.Request:
        headers = dict(request.headers)
        if request.closing:
            headers["Connection"] = "close"
        timeout = httpx.Timeout(request.seconds * self._patience, connect=request.reach or 10.0 * self._patience)
        url = self._own_url(request.path)
        if request.json is not None:
            headers["Content-Type"] = "application/json"
            return self._client.build_request(request.method, url, content=request.json, headers=headers, timeout=timeout)
        if request.multipart:
            parts = [(name, _part(value, files)) for name, value in request.pairs]
            return self._client.build_request(request.method, url, files=parts, headers=headers, timeout=timeout)
        encoded = urlencode([(name, _plain(value)) for name, value in request.pairs])
        if request.method == "GET":
            if request.pairs:
                url = url.partition("?")[0] + "?" + encoded
            return self._client.build_request("GET", url, headers=headers, timeout=timeout)
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self._client.build_request(request.method, url, content=encoded.encode(), headers=headers, timeout=timeout)

    def _own_url(self, path: str) -> str:
        """On this box, whatever port a link names: through a forward the box does not know the port that we see."""
        try:
            parts = urlsplit(urljoin(self._base + "/", path))
            host = parts.hostname
        except ValueError:
            host, parts = None, None
        if parts is None or parts.scheme not in {"http", "https"} or host != self.endpoint.host.lower():
            raise UnexpectedError(
                f"{self.where} leads to another place: {path[:200]!r}.",
                hint="Single sign-on and redirects to another name are not followed; use the box's own login and address.",
            )
        return self._base + (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def _redirected(self, request: Request, response: httpx.Response) -> Request:
        if int(response.headers.get("content-length", LARGEST_PAGE)) < 2**16:
            response.read()  # so that the connection can be used again
        if response.status_code in {307, 308} and request.method != "GET":
            raise UnexpectedError(f"{self.where} wants the same form sent to another address; that is not done blindly.")
        there = urljoin(str(response.url), response.headers["location"])
        return Request("GET", there, headers=request.headers, closing=request.closing, seconds=request.seconds)

    def _whole(self, response: httpx.Response, asked: float) -> Answer:
        answered, body = time.time(), bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > LARGEST_PAGE:
                raise UnexpectedError(f"{self.where} sends more than {LARGEST_PAGE} bytes where a page was expected.")
        url = response.url
        path = url.raw_path.decode("ascii", errors="replace")
        return Answer(response.status_code, path, response.headers, bytes(body), asked, answered)


def _redirects(response: httpx.Response) -> bool:
    return response.status_code in _REDIRECTS and "location" in response.headers


def _is_page(response: httpx.Response) -> bool:
    return response.headers.get("content-type", "").startswith("text/html") and "content-disposition" not in response.headers


@contextlib.contextmanager
def _translated(where: str, seconds: float) -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise UnreachableError(
            f"Nothing answers at {where}: {error or 'no connection'}.", hint="Is the box on, and the address right?"
        ) from error
    except httpx.TimeoutException as error:
        raise UnreachableError(f"{where} did not answer within {seconds:.0f} s.") from error
    except (httpx.DecodingError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UnexpectedError(f"{where} sends what cannot be read: {error}.") from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise UnreachableError(f"The connection to {where} broke off: {error or type(error).__name__}.") from error


def _plain(value: Value) -> str:
    if isinstance(value, Upload):
        raise TypeError("a file needs a multipart form")
    return value.reveal() if isinstance(value, Secret) else value


def _part(value: Value, files: contextlib.ExitStack) -> tuple[str | None, bytes | IO[bytes]]:
    if not isinstance(value, Upload):
        return (None, _plain(value).encode())
    if isinstance(value.content, bytes):
        return (value.filename, value.content)
    try:
        return (value.filename, files.enter_context(value.content.open("rb")))
    except OSError as error:
        raise FailedError(f"{value.content} could not be read: {error.strerror}.") from error


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[IO[bytes]]:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FailedError(
            f"{target} could not be written: {error.strerror}.", hint="Free space on this machine, or choose another folder."
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _pour(response: httpx.Response, sink: IO[bytes], progress: Progress, label: str, total: int | None) -> Saved:
    digest, size = hashlib.sha256(), 0
    for chunk in response.iter_bytes(2**20):
        sink.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        progress.update(label, size, total)
    return Saved(size, digest.hexdigest())
