"""How an appliance shows that it is ready: a page of its own, asked from outside. No agent and nothing of ours is needed inside."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum

from images.errors import SpecError
from kit.errors import UnreachableError

FORMS = "ssh, tls, tls:8443, https/status, https:8443/status or http:8080/status"
ANSWER_SECONDS = 5.0
MOST_BYTES = 1 << 20  # of a page that is searched for a text
_FORM = re.compile(r"(?P<speech>ssh|tls|https|http)(:(?P<port>[0-9]{1,5}))?(?P<path>/[!-~]*)?")


class Speech(StrEnum):
    """What is spoken on the port."""

    SSH = "ssh"
    TLS = "tls"
    HTTPS = "https"
    HTTP = "http"

    @property
    def usual_port(self) -> int:
        return {Speech.SSH: 22, Speech.HTTP: 80}.get(self, 443)

    @property
    def has_pages(self) -> bool:
        return self in (Speech.HTTPS, Speech.HTTP)


@dataclass(frozen=True)
class ReadyPage:
    """What has to answer, and how. ``port`` is the one inside the machine.

    ``TLS``: a handshake is all that is asked for; ``SSH``: that it greets. ``status``: only this one counts, None: any below 500.
    ``text`` has to stand in the page.
    """

    speech: Speech = Speech.TLS
    port: int = 443
    path: str = "/"
    status: int | None = None
    text: str = ""

    def __str__(self) -> str:
        where = self.path if self.speech.has_pages else ""
        wanted = [f"status {self.status}"] if self.status is not None else []
        wanted += [f"the text {self.text!r}"] if self.text else []
        return f"{self.speech.value}:{self.port}{where}" + (f" with {' and '.join(wanted)}" if wanted else "")


def parse_ready_page(word: str, *, status: int | None = None, text: str = "") -> ReadyPage:
    """The page in a word such as ``https:8443/status``.

    Raises:
        SpecError: it is in no known form, or asks a mere handshake for a status or a text.

    """
    found = _FORM.fullmatch(word)
    if found is None:
        raise SpecError(f"{word[:100]!r} does not say how readiness is seen.", hint=f"Write {FORMS}.")
    speech = Speech(found["speech"])
    port = int(found["port"]) if found["port"] else speech.usual_port
    if not 0 < port < 65536:
        raise SpecError(f"{port} is no TCP port.", hint="Ports are 1 to 65535.")
    if not speech.has_pages and (found["path"] or status is not None or text):
        raise SpecError(f"{speech.value.upper()} alone has no path, status or text.", hint="Name a page: https/status.")
    if status is not None and not 100 <= status <= 599:
        raise SpecError(f"{status} is no HTTP status.", hint="200 is the usual one.")
    return ReadyPage(speech, port, found["path"] or "/", status, text)


def ask_page(page: ReadyPage, host: str, port: int) -> bool:
    """Ask once, at the place that leads to the page's port. The certificate is not judged: a new box has one that it made itself.

    Raises:
        UnreachableError: nothing answers there in that way.

    """
    link = _link(page, host, port)
    try:
        if page.speech is Speech.SSH:
            return _greets(host, port)
        link.connect()
        if page.speech is Speech.TLS:
            return True
        link.request("GET", page.path, headers={"Connection": "close"})
        answer = link.getresponse()
        good = answer.status == page.status if page.status is not None else answer.status < http.client.INTERNAL_SERVER_ERROR
        return good and (not page.text or page.text in answer.read(MOST_BYTES).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{host}:{port} does not answer over {page.speech.value.upper()}: {error}") from error
    finally:
        link.close()


def _greets(host: str, port: int) -> bool:
    """User networking accepts for the machine whether something listens in it or not; only a greeting comes from inside."""
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as link:
        return link.recv(4) == b"SSH-"


def _link(page: ReadyPage, host: str, port: int) -> http.client.HTTPConnection:
    if page.speech is Speech.HTTP:
        return http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    return link_unjudged(host, port)


def link_unjudged(host: str, port: int) -> http.client.HTTPSConnection:
    """A connection that takes any certificate; so this computer's roots are not loaded, which takes longer than to ask."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=ANSWER_SECONDS, context=context)
