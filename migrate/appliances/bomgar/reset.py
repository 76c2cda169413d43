"""What must be gone after a factory reset. Pure: facts in, an error out."""

from __future__ import annotations

from collections.abc import Iterator

from kit.errors import RejectedError, UnexpectedError
from migrate.appliances.contract import Credentials
from migrate.appliances.errors import WrongBoxError
from migrate.facts import ApplianceFacts, Identity


def verify_nothing_left(before: Identity, now: ApplianceFacts, factory: Credentials) -> None:
    """Compare what was with what is.

    Raises:
        WrongBoxError: this is not the box that was reset: another serial number.
        RejectedError: something of before is still there.
        UnexpectedError: something could not be read, so it cannot be said.

    """
    if now.identity.serial != before.serial:
        raise WrongBoxError(
            f"The box that answers has the serial number {now.identity.serial}, not {before.serial}: it is not the one that was reset."
        )
    unread = [name for name in ("users", "sessions", "recordings", "files", "jump_clients") if getattr(now.content, name) is None]
    if unread:
        raise UnexpectedError(f"Whether the reset erased everything could not be told: {', '.join(unread)} could not be read.")
    left = list(_left(before, now, factory))
    if left:
        raise RejectedError(
            f"The factory reset of {before.hostname} is not complete: {'; '.join(left)}.", hint="Do not ship the box; reset it again."
        )


def _left(before: Identity, now: ApplianceFacts, factory: Credentials) -> Iterator[str]:
    if now.identity.guid == before.guid:
        yield "it still has its GUID"
    if now.identity.tls_spki_sha256 == before.tls_spki_sha256:
        yield "it still serves its key"
    others = set(now.content.users or ()) - {factory.site.user}
    if others:
        yield f"{len(others)} users of the site are left"
    counts = {
        "sessions": now.content.sessions,
        "recordings": now.content.recordings,
        "file-store items": now.content.files,
        "Jump Clients": now.content.jump_clients,
    }
    for name, found in counts.items():
        if found:
            yield f"{len(found)} {name} are left"
    foreign = [row.issued_to for row in now.certificates if row.issued_to != row.issued_by]
    if foreign:
        yield f"certificates are left: {', '.join(foreign)}"
