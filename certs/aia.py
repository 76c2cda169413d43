"""Missing issuers fetched from where the certificates themselves say (AIA). Only when a person asked for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from certs.bundle import Contents, Trust
from certs.cert import Cert
from certs.chain import find_paths
from certs.errors import NoAnswerError
from certs.read import read_contents
from certs.roots import Roots

MAX_BYTES = 64 * 1024
MAX_HOPS = 6
PATIENCE = 30.0  # seconds for one answer

Fetch = Callable[[str], bytes]


def fetch_issuers(leaf: Cert, pool: Sequence[Cert], roots: Roots, *, fetch: Fetch | None = None) -> tuple[Cert, ...]:
    """The certificates between ``leaf`` and a root that ``pool`` lacks, each fetched from its child's caIssuers address.

    ``fetch`` turns an address into bytes (over HTTP where None). Stops at a root, after six fetches, or when an answer does not help.

    Raises:
        NoAnswerError: an address does not answer.

    """
    found: list[Cert] = []
    tried: set[str] = set()
    for _ in range(MAX_HOPS):
        path = find_paths(leaf, [*pool, *found], roots)[0]
        top = path.certs[-1] if path.certs else leaf
        urls = [url for url in top.issuer_urls if url.startswith("http://") and url not in tried]
        if path.trust is not Trust.UNKNOWN or not urls:
            break
        tried.add(urls[0])
        contents: Contents = read_contents((fetch or fetch_over_http)(urls[0]))
        found += [cert for cert in contents.certs if cert not in found]
    return tuple(found)


def fetch_over_http(url: str) -> bytes:
    """What is at ``url``, at most 64 KiB.

    Raises:
        NoAnswerError: nothing is, or it is too much.

    """
    import httpx

    try:
        with httpx.stream("GET", url, timeout=10.0, follow_redirects=True) as answer:
            answer.raise_for_status()
            body, end = b"", time.monotonic() + PATIENCE
            for piece in answer.iter_bytes():
                body += piece
                if time.monotonic() > end:
                    raise NoAnswerError(f"{url} answers too slowly.", hint="Give the intermediate's file instead.")
                if len(body) > MAX_BYTES:
                    raise NoAnswerError(f"{url} answers with more than {MAX_BYTES:,} bytes.", hint="Give the intermediate's file instead.")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswerError(f"The issuer cannot be fetched from {url}: {error}.", hint="Give the intermediate's file instead.") from error
    return body
