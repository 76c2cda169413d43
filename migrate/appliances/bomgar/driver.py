"""The family's :class:`~migrate.appliances.contract.Appliance`: the documented API where there is one, pages for everything else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import RefusedError, RejectedError, UnreachableError
from kit.progress import Progress, Silent
from kit.secret import Secret
from migrate.appliances import refusals
from migrate.appliances.bomgar.backup import verify_backup_file
from migrate.appliances.bomgar.catalogue import ConsoleName
from migrate.appliances.bomgar.failover import BomgarFailover
from migrate.appliances.bomgar.pages import basics, certificates, network, software, updates
from migrate.appliances.bomgar.patience import wait_until
from migrate.appliances.bomgar.reset import verify_nothing_left
from migrate.appliances.bomgar.words import Term
from migrate.appliances.contract import Account, BackupReceipt, Credentials
from migrate.appliances.errors import BackupRefusedError, BusyError, LoginRefusedError, WrongKeyError
from migrate.appliances.http import BoxClient, Request
from migrate.appliances.pinned import Pin
from migrate.facts import (
    ApplianceFacts,
    BoxAddress,
    CertificateRow,
    FileItem,
    Identity,
    PackageOffer,
    Version,
)

if TYPE_CHECKING:
    from migrate.appliances.contract import Appliance


def credentials_after_reset(credentials: Credentials) -> Credentials:
    """The passwords that a box of these credentials is given when it is looked at after its factory reset.

    Derived, not stored: a run that was killed in between finds them again, and nobody without the box's own passwords does.
    """

    def derive(account: Account) -> Account:
        digest = hmac.digest(account.password.to_bytes(), b"boxshift: after a factory reset", hashlib.sha256)
        return Account("admin", Secret("Bx1-" + base64.urlsafe_b64encode(digest[:24]).decode()))

    return Credentials(site=derive(credentials.site), appliance=derive(credentials.appliance))


class BomgarAppliance(BomgarFailover):
    """One box, read and changed."""

    # Access

    def ensure_first_login(self, factory: Credentials, *, unless: Identity | None = None) -> None:
        """Change the factory's passwords to this box's own.

        The factory's password is tried first. Where it is refused it was changed before, and the box's own one must open: so at
        most one failed login for each of the two, and none on a new box. A box that is ``unless`` and lets the factory's password in
        is not changed.

        Raises:
            RejectedError: neither password opens the box, or it is ``unless``.

        """
        pairs = (
            (ConsoleName.APPLIANCE, factory.appliance, self.credentials.appliance),
            (ConsoleName.SITE, factory.site, self.credentials.site),
        )
        for name, theirs, ours in pairs:
            if theirs.password == ours.password:
                raise RefusedError(f"The password planned for {name} is the factory's own.", hint="Choose another one.")
            if theirs.user == ours.user:
                self._change_factory_password(name, theirs, ours, unless)
        self._box.enter()
        self._site.enter()

    def _change_factory_password(self, name: ConsoleName, theirs: Account, ours: Account, unless: Identity | None) -> None:
        console = self._console(name, theirs)
        try:
            console.enter(new_password=ours.password)
            if console.account.password != ours.password:  # the change was not forced
                if unless is not None and name is ConsoleName.APPLIANCE and basics.read_basics(console).identity.guid == unless.guid:
                    raise RejectedError(f"{console.client.where} has not been reset: it still has the GUID {unless.guid}.")
                console.ensure_password(ours.password)
        except LoginRefusedError:
            return  # changed before; whether to ours is looked at by logging in with it
        finally:
            console.client.close()

    def verify_access(self) -> None:
        """Log in to both consoles, and get a token where there is an API account."""
        self._box.enter()
        self._site.enter()
        if self._api is not None:
            self._api.verify_access()

    # Backups

    def take_backup(self, target: Path, password: Secret | None, *, history: bool, progress: Progress) -> BackupReceipt:
        """Save and read back. By the API, which always gives the history; without the history by the page."""

        def by_page() -> object:
            return software.download_backup(self._site, target, password, history=history, progress=progress)

        if history:
            self._ask(lambda api: api.take_backup(target, password, progress=progress), by_page)
        else:
            by_page()
        try:
            return verify_backup_file(target, password)
        except BackupRefusedError as error:
            target.unlink(missing_ok=True)  # what is broken must not lie there as if it were a backup
            raise BackupRefusedError(
                f"The backup that {self._anyone.where} sent is not usable: {error.sentence}", hint="Take it again.", **error.facts
            ) from error

    def verify_backup(self, path: Path, password: Secret | None) -> BackupReceipt:
        """Read a backup file back."""
        return verify_backup_file(path, password)

    def restore_backup(self, path: Path, password: Secret | None, *, progress: Progress) -> None:
        """Verify the file, restore it, wait until the box is healthy. Afterwards other accounts may open the site."""
        verify_backup_file(path, password)
        software.restore_backup(self._site, path, password, progress=progress, patience=self._patience)
        refusals.forget(self.endpoint.host, self.endpoint.port, ConsoleName.SITE)
        refusals.forget(self.endpoint.host, self.endpoint.port, "api")
        self.wait_until_healthy()

    def take_vault_key(self, target: Path, password: Secret) -> bool:
        """Save the Vault's key; False where this box has none."""
        return software.download_vault_key(self._site, target, password)

    def restore_vault_key(self, path: Path, password: Secret) -> None:
        """Put a Vault's key back."""
        software.restore_vault_key(self._site, path, password)

    # Extras

    def take_file(self, item: FileItem, target: Path) -> None:
        """Save a file-store item."""
        self._files.take(item, target)

    def upload_file(self, path: Path, name: str) -> None:
        """Put a file into the file store."""
        self._files.upload(path, name)

    def take_recording(self, session: str, target: Path) -> None:
        """Save a session's recording; only the API gives them."""
        if self._api is None:
            raise RefusedError(
                f"Recordings of {self._anyone.where} can only be taken with an API account.",
                hint="Name one in the plan, with reporting rights.",
            )
        self._api.take_recording(session, target, progress=Silent())

    # Certificates

    def export_certificate(self, row: CertificateRow, passphrase: Secret) -> bytes:
        """Certificate, chain and key as the box writes them."""
        return certificates.export_certificate(self._box, row, passphrase)

    def import_certificate(self, content: bytes, filename: str, passphrase: Secret) -> None:
        """Upload and look that it is there, with its key."""
        certificates.import_certificate(self._box, content, filename, passphrase)

    def assign_certificate(self, row: CertificateRow, addresses: Sequence[str]) -> bool:
        """Serve it on addresses; False where this version chooses."""
        return certificates.assign_certificate(self._box, row, addresses)

    # Packages

    def read_download_key(self) -> Secret | None:
        """The Appliance Download Key."""
        return updates.read_download_key(self._box)

    def ensure_update_server(self, address: str) -> None:
        """Make the box ask this update server."""
        updates.ensure_update_server(self._box, address)

    def read_offers(self) -> tuple[PackageOffer, ...]:
        """Check for updates and read the list."""
        return updates.read_offers(self._box)

    def finish_installation(self, *, progress: Progress) -> None:
        """Wait for the end of one that runs already."""
        updates.finish_installation(self._installer(progress))

    def install_offer(self, offer: PackageOffer, *, progress: Progress, accept_eula: bool) -> Version:
        """Install what is offered, and wait until the box runs it."""
        found = updates.install_offer(self._installer(progress), offer, accept_eula=accept_eula)
        self.wait_until_healthy()
        return found

    def install_file(self, path: Path, *, progress: Progress, accept_eula: bool) -> Version:
        """Install a package from a file, and wait until the box runs it."""
        found = updates.install_file(self._installer(progress), path, accept_eula=accept_eula)
        self.wait_until_healthy()
        return found

    def _installer(self, progress: Progress) -> updates.Installer:
        return updates.Installer(self._box, self._read_version, progress, self._patience)

    # Network

    def ensure_address(self, wanted: BoxAddress) -> None:
        """There, with this prefix and state."""
        self.prepare_address(wanted)()

    def prepare_address(self, wanted: BoxAddress) -> Callable[[], None]:
        """The same in two parts: what goes ahead now, the change with the call."""
        return network.prepare_address(self._box, wanted)

    # Power

    def reset_to_factory(self, expected: Identity, guard: Callable[[], None]) -> None:
        """Erase the box, if it is the one that is meant, and wait until it serves another key than before.

        A box that was reset already (a call after a crash) serves another key: that is a WrongBoxError here, as for any other box;
        :meth:`verify_reset` tells the two apart, by the serial number.
        """
        basics.end_box(self._box, expected, Term.RESET, guard)
        self._box.forget()
        wait_until(
            lambda: True if self._serves_other_key(expected.tls_spki_sha256) else None,
            what=f"{self._anyone.where} to come back from its factory reset with another key",
            timeout=900 * self._patience,
            poll=0.3,
            in_a_row=2,
        )

    def _serves_other_key(self, before: str) -> bool:
        """Looks with a connection that carries nothing: no cookie, no credential."""
        client = BoxClient(self.endpoint, Pin(before), patience=self._patience)
        try:
            client.send(Request("GET", "/check_health", closing=True))
        except WrongKeyError:
            return True
        finally:
            client.close()
        return False

    def verify_reset(self, before: Identity, factory: Credentials) -> ApplianceFacts:
        """Log in with the factory's credentials and look that nothing of ``before`` is left.

        The box serves a new key now, and which one cannot be known ahead: it is learned here. Nothing is at risk by that: the only
        thing sent before the serial number is compared is the factory's password, which is public, and one that is derived for
        this box alone and opens nothing else. Afterwards this driver goes on with the new key and these passwords.

        Raises:
            WrongBoxError: another serial number.
            RejectedError: something of ``before`` is still there; says what.

        """
        fresh = BomgarAppliance(
            replace(self.endpoint, pins=()),
            credentials_after_reset(self._own),
            language=self._language,
            patience=self._patience,
        )
        try:
            fresh.wait_until_healthy()
            fresh.ensure_first_login(factory, unless=before)
            facts = fresh.read_facts()
        finally:
            fresh.close()
        verify_nothing_left(before, facts, factory)
        self.close()
        self.endpoint = replace(self.endpoint, pins=(facts.identity.tls_spki_sha256,))
        self._open(Pin(facts.identity.tls_spki_sha256), fresh.credentials)
        return facts

    def shut_down(self, expected: Identity) -> None:
        """Switch the box off, and return when nothing answers any more, three times running; at once where nothing answers already.

        Where ``expected`` names another key than the endpoint, the box was reset in between, and is opened as after a reset.
        """
        if self._pin.keys and expected.tls_spki_sha256 not in self._pin.keys:
            self.close()
            self._open(Pin(expected.tls_spki_sha256), credentials_after_reset(self._own))
        if self._is_silent():
            return
        basics.end_box(self._box, expected, Term.SHUT_DOWN, lambda: None)
        self._box.forget()
        wait_until(
            lambda: True if self._is_silent() else None, what=f"{self._anyone.where} to be off", timeout=300 * self._patience, poll=0.5
        )

    def _is_silent(self) -> bool:
        """Whether nothing answers, three times running."""
        for _ in range(3):
            try:
                self._anyone.send(Request("GET", "/check_health", closing=True, seconds=10, reach=10.0))
            except BusyError:
                return False
            except UnreachableError:
                time.sleep(0.3 * self._patience)
                continue
            return False
        return True

    # The driver itself

    def with_credentials(self, credentials: Credentials) -> Appliance:
        """The same box with other credentials."""
        return BomgarAppliance(
            replace(self.endpoint, pins=self._pin.keys),
            credentials,
            language=self._language,
            patience=self._patience,
        )


if TYPE_CHECKING:

    def _is_an_appliance(box: BomgarAppliance) -> Appliance:
        return box
