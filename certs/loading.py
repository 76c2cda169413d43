"""From what a person named to contents and bundles: the first half of every command."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from certs.bundle import Bundle, Contents, Trust
from certs.chain import assemble
from certs.errors import LegacyCipherError, NoAnswerError, PassphraseNeededError, TooCostlyError, WrongPassphraseError
from certs.inputs import ask_passphrase, read_passphrases, read_sources
from certs.limits import MAX_ROUNDS
from certs.read import read_contents
from certs.roots import read_roots, system_roots


def load_contents(paths: Sequence[Path], references: Sequence[str] | None, max_rounds: int = MAX_ROUNDS) -> Contents:
    """Everything in the files, under the passphrases that the references name; at a terminal a missing one is asked for.

    Raises:
        CertsError: a file cannot be read at all.
        UsageError: a reference names nothing.

    """
    sources, unread = read_sources(paths)
    given = read_passphrases(references or ())
    found = read_contents(sources, given, max_rounds=max_rounds)
    asked = () if given else ask_passphrase(found.failures)
    found = read_contents(sources, asked, max_rounds=max_rounds) if asked else found
    return found + Contents(failures=tuple(unread))


def verify_readable(contents: Contents) -> Contents:
    """The contents, where nothing in them failed that a passphrase or a tool would mend.

    Raises:
        CertsError: something did.

    """
    for error in contents.failures:
        if isinstance(error, LegacyCipherError | WrongPassphraseError | PassphraseNeededError | TooCostlyError):
            raise error
    return contents


def load_bundle(
    contents: Contents,
    choose: str,
    roots: Path | None,
    intermediates: Sequence[Path] | None,
    *,
    aia: bool = False,
    at: datetime | None = None,
) -> Bundle:
    """The contents in order, completed from ``intermediates`` and, with ``aia``, from where the certificates say.

    Raises:
        CertsError: there is no certificate, or several could be the leaf.

    """
    trusted = read_roots(roots) if roots else system_roots()
    pool = read_contents(read_sources(intermediates or [])[0]).certs
    made = assemble(contents, roots=trusted, intermediates=pool, choose=choose, at=at)
    if aia and made.trust is Trust.UNKNOWN:
        from certs.aia import fetch_issuers

        fetched = fetch_issuers(made.leaf, [*contents.certs, *pool], trusted)
        made = assemble(contents, roots=trusted, intermediates=[*pool, *fetched], choose=choose, at=at)
    return made


def find_addresses(host: str, port: int) -> list[str]:
    """Every address that a name resolves to, once.

    Raises:
        NoAnswerError: it does not resolve.

    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NoAnswerError(f"The name {host} does not resolve: {reason}.", hint="Say where to connect with --address.") from error
    return list(dict.fromkeys(str(each[4][0]) for each in found))
