"""Updates of /appliance (Support > Updates on old versions)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kit.errors import RefusedError, RejectedError, UnexpectedError, UnreachableError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances.bomgar.catalogue import UPDATES
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.forms import Button, Entry, Field, FieldKind, Form, Row, Table, View, fill
from migrate.appliances.bomgar.patience import twice, wait_until
from migrate.appliances.bomgar.words import Term
from migrate.appliances.errors import BusyError, PackageRefusedError, SessionLostError
from migrate.appliances.http import Request, Upload
from migrate.facts import PackageKind, PackageOffer, Version

ReadVersion = Callable[[PackageKind], Version]
_LONGEST = 2 * 3600.0  # seconds an installation may take; the vendor speaks of 15 minutes to an hour


@dataclass(frozen=True)
class Installer:
    """What installing needs beside the console. ``read_version`` tells what is installed; it may raise while the box restarts."""

    console: Console
    read_version: ReadVersion
    progress: Progress
    patience: float


@dataclass(frozen=True)
class PackageFile:
    """What a package file says it is."""

    kind: PackageKind
    version: Version


def read_download_key(console: Console) -> Secret | None:
    """The Appliance Download Key; None where this version shows none."""
    found = console.open(UPDATES).find_fact(Term.DOWNLOAD_KEY)
    return Secret(found) if found else None


def ensure_update_server(console: Console, address: str) -> None:
    """Make the box ask this update server."""
    twice(lambda: _set_update_server(console, address))
    if _server_field(console.open(UPDATES))[1].value != address:
        raise RejectedError(f"{console.client.where} does not take the update server {address}.")


def _set_update_server(console: Console, address: str) -> None:
    view = console.open(UPDATES)
    form, field = _server_field(view)
    if field.value == address:
        return
    button = next((b for b in form.buttons if view.words.match_any(Term.SAVE_CHANGES, b.texts)), None)
    if button is None:
        raise view.lacking("no button", Term.SAVE_CHANGES)
    console.press(fill(form, (Entry(field, address),), press=button))


def _server_field(view: View) -> tuple[Form, Field]:
    for form in view.page.forms:
        field = view.find_field(form, Term.UPDATE_SERVER, kinds=(FieldKind.TEXT,))
        if field is not None:
            return form, field
    raise view.lacking("no field", Term.UPDATE_SERVER)


def read_offers(console: Console) -> tuple[PackageOffer, ...]:
    """Let the box ask its update server, then read the list.

    Raises:
        BusyError: it installs a package, and offers nothing until that has ended.
        RejectedError: the box says that it could not ask.

    """

    def ask() -> View:
        view = console.open(UPDATES)
        if _is_running(view):
            raise BusyError(f"{console.client.where} installs a package just now.", hint="Wait for its end; do not restart the box.")
        form, button = view.need_button(Term.CHECK_FOR_UPDATES)
        return console.press(fill(form, (), press=button, seconds=180))

    after = twice(ask)
    if after.page.status >= 400:
        raise RejectedError(
            f"{console.client.where} could not check for updates: {after.note()}",
            hint="Compare the update server, the clock (the download key depends on it) and the network on the box's own pages.",
        )
    return list_offers(console.open(UPDATES))


def list_offers(view: View) -> tuple[PackageOffer, ...]:
    """The offers that the page lists, the greyed-out ones included."""
    return tuple(offer for offer, _, _ in _rows(view))


def _rows(view: View) -> list[tuple[PackageOffer, Form, Button]]:
    table = next((t for t in view.page.tables if view.words.match_any(Term.AVAILABLE_UPDATES, t.headings)), None)
    if table is None:
        if view.has_heading(Term.AVAILABLE_UPDATES):
            return []
        raise view.lacking("no heading", Term.AVAILABLE_UPDATES)
    found = []
    for row in table.rows:
        pressed = next(
            ((f, c) for f, c in view.in_row(row) if isinstance(c, Button) and view.words.match_any(Term.INSTALL_THIS_UPDATE, c.texts)), None
        )
        if pressed is not None:
            found.append((_offer(view, table, row, pressed[1]), *pressed))
    return found


def _offer(view: View, table: Table, row: Row, button: Button) -> PackageOffer:
    name, version, build = (table.text(row, view.words, term) for term in (Term.NAME, Term.VERSION, Term.BUILD))
    if not name or not version:
        raise view.lacking("an update without", Term.VERSION)
    missing = table.text(row, view.words, Term.REQUIRES)
    if (button.disabled or row.disabled) and not missing:
        missing = "the page shows it greyed out and does not say why"
    return PackageOffer(name, _kind(view, name), version, build, missing if button.disabled or row.disabled else "")


def _kind(view: View, name: str) -> PackageKind:
    return PackageKind.BASE if view.words.find_phrase(Term.BASE_PACKAGE, name) else PackageKind.SITE


def install_offer(installer: Installer, offer: PackageOffer, *, accept_eula: bool) -> Version:
    """Install what is offered; what is installed already is not installed again.

    Raises:
        RefusedError: the EULA is not accepted.
        PackageRefusedError: a prerequisite is missing, or the box says that it failed.

    """
    wanted = Version(offer.version, offer.build)
    if installer.read_version(offer.kind) == wanted:
        return wanted
    _verify_accepted(installer.console, accept_eula, offer.name)

    def begin() -> None:
        view = installer.console.open(UPDATES)
        if _is_running(view):
            return
        row = next(((f, b) for o, f, b in _rows(view) if (o.kind, o.version, o.build) == (offer.kind, offer.version, offer.build)), None)
        if row is None:
            raise PackageRefusedError(
                f"{installer.console.client.where} does not offer {offer.name} (any more).", hint="Check for updates again."
            )
        if row[1].disabled:
            raise PackageRefusedError(f"{offer.name} cannot be installed yet: {offer.missing or 'the page shows it greyed out'}.")
        _accept(installer, fill(row[0], (), press=row[1], seconds=600))

    return _install(installer, offer.kind, wanted, begin, offer.name)


def install_file(installer: Installer, path: Path, *, accept_eula: bool) -> Version:
    """Install a package from a file of this machine.

    Raises:
        RefusedError: the EULA is not accepted.
        PackageRefusedError: the box does not take it, or says that it failed.
        UnexpectedError: the file does not tell what it is: then "installed" could not be read back.

    """
    package = read_package_file(path)
    if installer.read_version(package.kind) == package.version:
        return package.version
    _verify_accepted(installer.console, accept_eula, path.name)

    def begin() -> None:
        view = installer.console.open(UPDATES)
        if _is_running(view):
            return
        form, button = view.need_button(Term.UPDATE_SOFTWARE)
        field = view.need_field(form, Term.UPDATE_FILE, kinds=(FieldKind.FILE,))
        _accept(installer, fill(form, (Entry(field, Upload(path, path.name)),), press=button, seconds=1800))

    return _install(installer, package.kind, package.version, begin, path.name)


def read_package_file(path: Path) -> PackageFile:
    """What a package file says it is; its signature is for the box to check."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("package.json") as description:
            told = json.loads(description.read(2**20))
        return PackageFile(PackageKind(told["kind"]), Version(str(told["version"]), str(told["build"])))
    except OSError as error:
        raise PackageRefusedError(f"The package {path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise PackageRefusedError(f"The file {path} is not an update package: {error}.", hint="Download it again.") from error


def _verify_accepted(console: Console, accepted: bool, name: str) -> None:  # noqa: FBT001 - it is the question itself
    if not accepted:
        raise RefusedError(
            f"Installing {name} on {console.client.where} needs the licence agreement (EULA) to be accepted.",
            hint="Read it, then say so in the plan.",
        )


def _accept(installer: Installer, request: Request) -> None:
    """Press install or upload, then accept on the page that follows."""
    page = installer.console.press(request)
    found = page.find_button(Term.CONTINUE)
    if page.page.status >= 400 or found is None:
        if _is_running(page):
            return
        raise PackageRefusedError(
            f"{installer.console.client.where} does not take the package: {page.note() or 'no licence page follows'}",
            status=page.page.status,
        )
    form, button = found
    tick = page.need_field(form, Term.ACCEPT_EULA, kinds=(FieldKind.TICK,))
    after = installer.console.press(fill(form, (Entry(tick, value=True),), press=button, seconds=600))
    if after.page.status >= 400:
        raise PackageRefusedError(
            f"{installer.console.client.where} does not install the package: {after.note()}", status=after.page.status
        )


def _install(installer: Installer, kind: PackageKind, wanted: Version, begin: Callable[[], None], name: str) -> Version:
    try:
        begin()
    except SessionLostError:
        begin()  # nothing is repeated: `begin` reads first whether an installation runs
    except UnreachableError:
        # It broke off while it was pressed, or the box restarts from a quick package already: the box tells whether it was done.
        if not _has_begun(installer, kind, wanted):
            begin()
    return wait_until(
        lambda: _look(installer, kind, wanted, name), what=f"{name} to be installed", timeout=_LONGEST * installer.patience, poll=0.5
    )


def _has_begun(installer: Installer, kind: PackageKind, wanted: Version) -> bool:
    """Whether the box works on a package, has it, or says that one failed: then nothing is pressed a second time."""

    def look() -> bool:
        view = installer.console.open(UPDATES)
        return _is_running(view) or installer.read_version(kind) == wanted or _has_failed(view)

    return wait_until(look, what=f"{installer.console.client.where} to answer again", timeout=300 * installer.patience, poll=0.5)


def finish_installation(installer: Installer) -> None:
    """Wait for the end of an installation that somebody began before; at once where none runs.

    Raises:
        PackageRefusedError: one ran, and the box says that it failed.

    """
    ran = False

    def look() -> bool | None:
        nonlocal ran
        view = installer.console.open(UPDATES)
        if _is_running(view):
            ran = True
            _tell(installer, view, "the installation that was begun before")
            return None
        if ran:
            _raise_if_failed(installer, view, "what was begun before")
        return True

    wait_until(look, what="the end of an installation that was begun before", timeout=_LONGEST * installer.patience, poll=0.5)


def _look(installer: Installer, kind: PackageKind, wanted: Version, name: str) -> Version | None:
    view = installer.console.open(UPDATES)
    if _is_running(view):
        _tell(installer, view, name)
        return None
    found = installer.read_version(kind)
    if found == wanted:
        return wanted
    _raise_if_failed(installer, view, name)
    return None


def _tell(installer: Installer, view: View, name: str) -> None:
    installer.progress.update(f"{name}: {view.find_fact(Term.PROGRESS) or 'installing'}")


def _raise_if_failed(installer: Installer, view: View, name: str) -> None:
    if _has_failed(view):
        raise PackageRefusedError(
            f"{installer.console.client.where} could not install {name}: {view.find_fact(Term.DETAILS) or view.note()}",
            hint="Nothing was changed by the installation, as far as the box says; do not restart it, read its Updates page.",
        )


def _is_running(view: View) -> bool:
    """While an installation runs the page shows its progress instead of the button to check for updates."""
    if view.find_button(Term.CHECK_FOR_UPDATES) is not None:
        return False
    if view.find_fact(Term.PROGRESS) is not None or view.has_heading(Term.IN_PROGRESS):
        return True
    if view.page.status >= 400 or view.find_button(Term.CONTINUE) is not None:
        return False
    raise UnexpectedError(f"The page {view.page.path} shows neither updates nor an installation.", page_says=view.note())


def _has_failed(view: View) -> bool:
    return view.words.match(Term.FAILED, view.find_fact(Term.LAST_INSTALLATION) or "")
