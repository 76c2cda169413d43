"""Public Portals > File Store: what is in it, taking files out, putting files in."""

from __future__ import annotations

import re
from pathlib import Path

from kit.errors import RejectedError, UnexpectedError
from kit.progress import Silent
from migrate.appliances.bomgar.catalogue import FILE_STORE
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.forms import Entry, FieldKind, Link, Row, Table, View, fill
from migrate.appliances.bomgar.pages.site import filled
from migrate.appliances.bomgar.patience import ensure, twice
from migrate.appliances.bomgar.words import Term
from migrate.appliances.errors import SessionLostError
from migrate.appliances.http import Saved, Upload
from migrate.facts import FileItem

_UNITS = {"": 1, "b": 1, "bytes": 1, "kb": 1024, "kib": 1024, "mb": 1024**2, "mib": 1024**2, "gb": 1024**3, "gib": 1024**3}


class FileStore:
    """The page of one box. It is kept from one file to the next, because finding it anew costs several pages for every file.

    What the kept page does not list, or what comes back after a change, is looked for on a page that was freshly read.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view: View | None = None

    def read(self) -> tuple[FileItem, ...]:
        """All items with their sizes in bytes, freshly read."""
        self._view = None
        return tuple(item for item, _ in _rows(self._page()))

    def take(self, item: FileItem, target: Path) -> None:
        """Save one item, and compare its length with what the page said."""
        saved = twice(lambda: self._save(item, target))
        if saved.size != item.size:
            target.unlink(missing_ok=True)
            raise UnexpectedError(f"{item.name} has {saved.size} bytes, the page says {item.size}.")

    def upload(self, path: Path, name: str) -> None:
        """Put a file into the store under this name, and look that it is there with its length."""
        wanted = FileItem(name, path.stat().st_size)
        acted = False

        def look() -> FileItem | None:
            if any(item == wanted for item, _ in _rows(self._page())):
                return wanted
            if acted:
                self._view = None
            return None

        def act() -> None:
            nonlocal acted
            view, self._view, acted = self._page(), None, True
            form, button = view.need_button(Term.UPLOAD)
            field = view.need_field(form, Term.FILE, kinds=(FieldKind.FILE,))
            after = self._console.press(fill(form, (Entry(field, Upload(path, name)),), press=button, seconds=1800))
            if after.page.status >= 400:
                raise RejectedError(f"{self._console.client.where} does not take the file {name}: {after.note()}", status=after.page.status)
            self._view = after if _is_store(after) else None

        ensure(look, act, what=f"{name} in the file store", timeout=30)

    def _page(self) -> View:
        self._view = self._view or self._console.open(FILE_STORE)
        return self._view

    def _save(self, item: FileItem, target: Path) -> Saved:
        link = self._find_link(item)
        if link is None:  # the kept page may be old
            self._view = None
            link = self._find_link(item)
        if link is None:
            raise UnexpectedError(f"The file store of {self._console.client.where} has no {item.name} of {item.size} bytes (any more).")
        try:
            return self._console.save_link(link, target, progress=Silent(), label=item.name)
        except SessionLostError:
            self._view = None
            raise

    def _find_link(self, item: FileItem) -> Link | None:
        return next((link for found, link in _rows(self._page()) if found == item), None)


def _is_store(view: View) -> bool:
    """Whether a page that came back lists the files and takes another one."""
    return view.find_table(Term.NAME, Term.SIZE) is not None and view.find_button(Term.UPLOAD) is not None


def _rows(view: View) -> list[tuple[FileItem, Link]]:
    table = view.need_table(Term.NAME, Term.SIZE)
    return [_file(view, table, row) for row in filled(table)]


def _file(view: View, table: Table, row: Row) -> tuple[FileItem, Link]:
    name, size = table.text(row, view.words, Term.NAME), table.text(row, view.words, Term.SIZE)
    link = next((link for link in row.links if view.words.match(Term.DOWNLOAD, link.text) or link.text == name), None)
    if link is None:
        raise view.lacking("no link", Term.DOWNLOAD)
    return FileItem(name, parse_size(size)), link


def parse_size(text: str) -> int:
    """Bytes from ``1234`` or ``1,234`` or ``12 KB``.

    Raises:
        UnexpectedError: it is no size.

    """
    found = re.fullmatch(r"([0-9][0-9.,' ]*)\s*([A-Za-z]*)", text.replace("\u00a0", " ").strip())
    unit = found.group(2).lower() if found else "?"
    if found is None or unit not in _UNITS:
        raise UnexpectedError(f"The page shows a size that cannot be read: {text!r}.")
    digits = found.group(1).strip()
    if _UNITS[unit] == 1:
        return int(re.sub(r"\D", "", digits))
    return round(float(digits.replace(",", ".").replace(" ", "")) * _UNITS[unit])
