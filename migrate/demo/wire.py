"""One HTTPS exchange with the site, at an address of our choosing, verified under the site's name."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kit.errors import UsageError
from migrate.demo.journal import digest_chain


@dataclass(frozen=True)
class Answer:
    """What came back. ``error`` is empty where an HTTP answer came, whatever its status; ``status`` is 0 where none did."""

    status: int = 0
    body: bytes = b""
    leaf: str = ""
    chain: str = ""
    error: str = ""


@dataclass(frozen=True)
class Target:
    """The site as it is named to the outside: SNI and Host say ``site``, whatever the address."""

    site: str
    port: int

    def url(self, address: str, path: str) -> str:
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}:{self.port}{path}"

    @property
    def host(self) -> str:
        return self.site if self.port == 443 else f"{self.site}:{self.port}"


def read_trust(ca_file: Path) -> ssl.SSLContext:
    """What trusts the roots of this file, and no others.

    Raises:
        UsageError: it holds none.

    """
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{ca_file} holds no root certificate in PEM form.", hint="Give the root of the site's chain.") from error


class SiteWire:
    """Connections to the site that trust the given roots only. Without ``keep_alive`` every request is a new TLS connection.

    ``timeout`` in seconds for the whole of one exchange.

    Raises:
        UsageError: the file holds no certificate.

    """

    def __init__(self, target: Target, ca_file: Path, *, timeout: float, keep_alive: bool) -> None:
        trust = read_trust(ca_file)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None if keep_alive else 0)
        self._client = httpx.AsyncClient(verify=trust, trust_env=False, limits=limits, timeout=timeout)
        self._target = target
        self._timeout = timeout

    async def exchange(self, address: str, path: str, body: object = None) -> Answer:
        """GET ``path``, or POST ``body`` as JSON. Never raises for what the other side does."""
        request = self._client.build_request(
            "GET" if body is None else "POST",
            self._target.url(address, path),
            headers={"Host": self._target.host},
            json=body,
            extensions={"sni_hostname": self._target.site},
        )
        leaf = chain = ""
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.send(request, stream=True)
                try:
                    leaf, chain = _served(response)
                    content = await response.aread()
                finally:
                    await response.aclose()
            return Answer(response.status_code, content, leaf, chain)
        except (TimeoutError, httpx.TimeoutException):
            return Answer(leaf=leaf, chain=chain, error="timeout: no answer in time")
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            return Answer(leaf=leaf, chain=chain, error=_reason(error))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _reason(error: Exception) -> str:
    text = str(error)
    kind = "tls" if "SSL" in text or "certificate" in text else "connect" if isinstance(error, httpx.ConnectError) else "http"
    return f"{kind}: {type(error).__name__}: {text}"[:200]


def _served(response: httpx.Response) -> tuple[str, str]:
    return digest_served(response.extensions["network_stream"].get_extra_info("ssl_object"))


def digest_served(tls: Any) -> tuple[str, str]:
    """SHA-256 of the leaf that a TLS connection was shown, and :func:`digest_chain` of all of it."""
    leaf = tls.getpeercert(binary_form=True)
    return hashlib.sha256(leaf).hexdigest(), digest_chain(_chain(tls))


def _chain(tls: Any) -> list[bytes]:
    """Everything that was served. Python gives it openly from 3.13 on; before, its C object has it already."""
    if hasattr(tls, "get_unverified_chain"):
        return [bytes(one) for one in tls.get_unverified_chain()]
    inner = getattr(tls, "_sslobj", None)
    read = getattr(inner, "get_unverified_chain", None)
    return [one.public_bytes(2) for one in read() or ()] if read is not None else []  # 2: DER
