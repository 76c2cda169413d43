"""Management > Software Management of /login: backup, restore, the Vault's key."""

from __future__ import annotations

from pathlib import Path

from kit.errors import UnexpectedError
from kit.progress import Progress, Silent
from kit.secret import Secret
from migrate.appliances.bomgar.catalogue import SOFTWARE
from migrate.appliances.bomgar.console import Console, PageKind, classify
from migrate.appliances.bomgar.forms import Button, Entry, FieldKind, Form, View, fill
from migrate.appliances.bomgar.patience import twice, wait_until
from migrate.appliances.bomgar.words import Term
from migrate.appliances.errors import BackupRefusedError
from migrate.appliances.http import Saved, Upload

_LONGEST = 4 * 3600.0  # seconds a restore may take


def download_backup(console: Console, target: Path, password: Secret | None, *, history: bool, progress: Progress) -> Saved:
    """Save a backup by the page."""

    def fetch() -> Saved:
        view = console.open(SOFTWARE)
        form, button = view.need_button(Term.DOWNLOAD_BACKUP)
        entries = _password_twice(view, form, Term.BACKUP_PASSWORD, password)
        entries.append(Entry(view.need_field(form, Term.INCLUDE_HISTORY, kinds=(FieldKind.TICK,)), history))
        return console.save(fill(form, entries, press=button, seconds=1800), target, progress=progress, label="the backup")

    return twice(fetch)


def _password_twice(view: View, form: Form, term: Term, password: Secret | None) -> list[Entry]:
    if password is None:
        return []
    first = view.need_field(form, term, kinds=(FieldKind.PASSWORD,))
    again = view.find_field(form, Term.CONFIRM_PASSWORD, kinds=(FieldKind.PASSWORD,))
    return [Entry(f, password) for f in (first, again) if f is not None]


def restore_backup(console: Console, path: Path, password: Secret | None, *, progress: Progress, patience: float) -> None:
    """Upload a backup and wait until the box has restored it: everyone is logged out then, or the page says how it ended.

    Raises:
        BackupRefusedError: the box does not take it, or says that it failed.

    """

    def begin() -> View:
        view = console.open(SOFTWARE)
        if _is_running(view):
            return view
        form, button = view.need_button(Term.UPLOAD_BACKUP)
        entries = [Entry(view.need_field(form, Term.BACKUP_FILE, kinds=(FieldKind.FILE,)), Upload(path, path.name))]
        if password is not None:
            entries.append(Entry(view.need_field(form, Term.BACKUP_PASSWORD, kinds=(FieldKind.PASSWORD,)), password))
        return console.press_last(fill(form, entries, press=button, seconds=1800))

    after = begin()
    if after.page.status in {401, 403} or (after.page.status < 400 and classify(after) is PageKind.LOGIN):
        after = begin()  # the session had ended before the upload: a restore is only begun by a page that takes the file
    if after.page.status >= 400:
        raise BackupRefusedError(f"{console.client.where} does not take the backup: {after.note()}", status=after.page.status)
    progress.update("restoring")
    wait_until(lambda: _look(console, progress), what=f"{console.client.where} to restore", timeout=_LONGEST * patience, poll=0.5)
    console.forget()


def _look(console: Console, progress: Progress) -> bool | None:
    # Never logs in: with the accounts of before, that would be a failed login as soon as the restore has ended.
    page = console.glance(SOFTWARE)
    if page is None:
        return True  # logged out: the accounts are those of the backup now
    if _is_running(page):
        progress.update(f"restoring: {page.find_fact(Term.DETAILS) or ''}".rstrip(": "))
        return None
    state = page.find_fact(Term.LAST_RESTORE) or ""
    if page.words.match(Term.FAILED, state):
        raise BackupRefusedError(f"{console.client.where} could not restore the backup: {page.find_fact(Term.DETAILS) or page.note()}")
    return True if page.words.match(Term.FINISHED, state) else None


def _is_running(view: View) -> bool:
    return view.words.match(Term.RUNNING, view.find_fact(Term.LAST_RESTORE) or "")


def download_vault_key(console: Console, target: Path, password: Secret) -> bool:
    """Save the Vault's key under a password. False where this box has none."""

    def fetch() -> bool:
        found = _vault_form(console)
        if found is None:
            return False
        view, form, button = found
        entries = _password_twice(view, form, Term.VAULT_KEY_PASSWORD, password)
        console.save(fill(form, entries, press=button), target, progress=Silent(), label="the Vault key")
        return True

    return twice(fetch)


def _vault_form(console: Console) -> tuple[View, Form, Button] | None:
    view = console.open(SOFTWARE)
    found = view.find_button(Term.DOWNLOAD_VAULT_KEY)
    known = view.find_fact(Term.VAULT_KEY_FINGERPRINT)
    if found is None or (known is not None and view.words.match(Term.NONE, known)):
        return None
    return view, *found


def restore_vault_key(console: Console, path: Path, password: Secret) -> None:
    """Upload the Vault's key.

    Raises:
        BackupRefusedError: the box does not take it.
        UnexpectedError: this version has no place for it, or does not say that it has it now.

    """

    def send() -> View:
        view = console.open(SOFTWARE)
        form, button = view.need_button(Term.UPLOAD_VAULT_KEY)
        entries = (
            Entry(view.need_field(form, Term.VAULT_KEY_FILE, kinds=(FieldKind.FILE,)), Upload(path, path.name)),
            Entry(view.need_field(form, Term.VAULT_KEY_PASSWORD, kinds=(FieldKind.PASSWORD,)), password),
        )
        return console.press(fill(form, entries, press=button))

    after = twice(send)  # the same key again makes no difference
    if after.page.status >= 400:
        raise BackupRefusedError(f"{console.client.where} does not take the Vault key: {after.note()}", status=after.page.status)
    known = console.open(SOFTWARE).find_fact(Term.VAULT_KEY_FINGERPRINT)
    if known is not None and after.words.match(Term.NONE, known):
        raise UnexpectedError(f"{console.client.where} took the Vault key, but its page shows none.", page_says=after.note())
