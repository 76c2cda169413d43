"""A page as values: what a person sees on it, found by words, and how a form is filled. Pure; nothing here talks to a box."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias, TypeVar

from kit.errors import UnexpectedError
from migrate.appliances.bomgar.words import Term, Words
from migrate.appliances.http import Answer, Request, Upload, Value

T = TypeVar("T")
Filling: TypeAlias = Value | bool


class FieldKind(Enum):
    """What kind of control it is."""

    TEXT = "text"
    PASSWORD = "password"  # noqa: S105 - a kind of control
    TICK = "checkbox"
    RADIO = "radio"
    SELECT = "select"
    FILE = "file"
    HIDDEN = "hidden"


@dataclass(frozen=True)
class Option:
    """One entry of a drop-down."""

    text: str
    value: str
    selected: bool
    disabled: bool


@dataclass(frozen=True)
class Field:
    """One control. ``number`` is its place on the page and identifies it; ``name`` is only ever sent back, never searched for.

    ``labels`` are the texts by which a person knows it, the best first.
    """

    number: int
    name: str
    kind: FieldKind
    value: str = field(default="", repr=False)
    labels: tuple[str, ...] = ()
    ticked: bool = False
    disabled: bool = False
    readonly: bool = False
    options: tuple[Option, ...] = ()


@dataclass(frozen=True)
class Button:
    """One button. ``texts``: what is written on it, then its aria-label and title."""

    number: int
    texts: tuple[str, ...]
    name: str
    value: str
    action: str | None
    disabled: bool


@dataclass(frozen=True)
class Form:
    """One form. ``action`` is a URL; ``headings`` stand above it (the nearest last) or in it."""

    action: str
    method: str
    multipart: bool
    fields: tuple[Field, ...]
    buttons: tuple[Button, ...]
    headings: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """One link. ``under``: the texts of the menu entries that it is nested in."""

    text: str
    url: str
    under: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, and the controls in it by their numbers."""

    text: str
    controls: tuple[int, ...]
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Row:
    """One row of a table's body. ``text`` is of the whole row; ``disabled`` where the page shows it greyed out."""

    cells: tuple[Cell, ...]
    disabled: bool

    @property
    def controls(self) -> tuple[int, ...]:
        """The numbers of all controls in the row."""
        return tuple(number for cell in self.cells for number in cell.controls)

    @property
    def links(self) -> tuple[Link, ...]:
        """All links in the row."""
        return tuple(link for cell in self.cells for link in cell.links)

    @property
    def text(self) -> str:
        """What is written in the row."""
        return " ".join(cell.text for cell in self.cells if cell.text)


@dataclass(frozen=True)
class Table:
    """One table with a heading row."""

    headers: tuple[str, ...]
    rows: tuple[Row, ...]
    headings: tuple[str, ...]

    def column(self, words: Words, term: Term) -> int | None:
        """The place of the column with this heading; None where there is none."""
        return next((place for place, header in enumerate(self.headers) if words.match(term, header)), None)

    def cell(self, row: Row, words: Words, term: Term) -> Cell | None:
        """The row's cell under that heading; None where the column or the cell is missing."""
        place = self.column(words, term)
        return row.cells[place] if place is not None and place < len(row.cells) else None

    def text(self, row: Row, words: Words, term: Term) -> str:
        """The cell's text; empty where there is none."""
        cell = self.cell(row, words, term)
        return cell.text if cell is not None else ""


@dataclass(frozen=True)
class Page:
    """One page. ``facts`` are label and value pairs (definition lists, two-cell rows); ``notes`` what it says to the person.

    ``status`` is the HTTP status. ``text`` is all that is visible.
    """

    path: str
    status: int
    title: str
    headings: tuple[str, ...]
    links: tuple[Link, ...]
    forms: tuple[Form, ...]
    tables: tuple[Table, ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    text: str = field(repr=False)


@dataclass(frozen=True)
class View:
    """A page looked at with the words of a language. ``find_`` answers None where it is not there; ``need_`` raises UnexpectedError.

    ``answer`` is what it was read from; None in tests of pages alone.
    """

    page: Page
    words: Words
    answer: Answer | None = None

    def find_fact(self, term: Term) -> str | None:
        """The value beside a label; also what a text field of that label holds."""
        for label, value in self.page.facts:
            if self.words.match(term, label) and value:
                return value
        shown = (f for f in self._fields() if f.kind is FieldKind.TEXT and f.value and self.words.match_any(term, f.labels))
        return next((f.value for f in shown), None)

    def need_fact(self, term: Term) -> str:
        """As find_fact; raises where there is none."""
        return self._there(self.find_fact(term), "no", term)

    def has_heading(self, term: Term) -> bool:
        """Whether a heading of the page says this."""
        return self.words.match_any(term, self.page.headings)

    def find_links(self, term: Term) -> tuple[Link, ...]:
        """The links with this text, each address once."""
        found = {link.url: link for link in reversed(self.page.links) if self.words.match(term, link.text)}
        return tuple(reversed(found.values()))

    def find_button(self, term: Term, *, under: Term | None = None) -> tuple[Form, Button] | None:
        """The first button of this text and its form; ``under`` names a heading that must stand above or in the form."""
        for form in self.page.forms:
            if under is not None and not self.words.match_any(under, form.headings):
                continue
            for button in form.buttons:
                if self.words.match_any(term, button.texts):
                    return form, button
        return None

    def need_button(self, term: Term, *, under: Term | None = None) -> tuple[Form, Button]:
        """As find_button; raises where there is none or it cannot be pressed."""
        form, button = self._there(self.find_button(term, under=under), "no button", term)
        if button.disabled:
            raise UnexpectedError(f"The button “{self.words.name(term)}” of the page {self.page.path} cannot be pressed now.")
        return form, button

    def find_field(self, form: Form, *terms: Term, kinds: Sequence[FieldKind] = ()) -> Field | None:
        """The form's first field with one of these labels, in the order of the terms, best labels first."""
        wanted = [f for f in form.fields if f.kind is not FieldKind.HIDDEN and (not kinds or f.kind in kinds)]
        for term in terms:
            depth = max((len(f.labels) for f in wanted), default=0)
            for place in range(depth):
                for item in wanted:
                    if place < len(item.labels) and self.words.match(term, item.labels[place]):
                        return item
        return None

    def need_field(self, form: Form, *terms: Term, kinds: Sequence[FieldKind] = ()) -> Field:
        """As find_field; raises where there is none."""
        return self._there(self.find_field(form, *terms, kinds=kinds), "no field", terms[0])

    def find_table(self, *terms: Term) -> Table | None:
        """The first table that has all these columns."""
        return next((t for t in self.page.tables if all(t.column(self.words, term) is not None for term in terms)), None)

    def need_table(self, *terms: Term) -> Table:
        """As find_table; raises where there is none."""
        return self._there(self.find_table(*terms), "no table with the column", terms[0])

    def in_row(self, row: Row) -> Iterator[tuple[Form, Field | Button]]:
        """The controls of a table's row, each with its form."""
        wanted = set(row.controls)
        for form in self.page.forms:
            controls: tuple[Field | Button, ...] = (*form.fields, *form.buttons)
            yield from ((form, control) for control in controls if control.number in wanted)

    def note(self) -> str:
        """What the page says to the person, for sentences; empty where it says nothing."""
        return " ".join(dict.fromkeys(self.page.notes))[:400]

    def _fields(self) -> Iterator[Field]:
        for form in self.page.forms:
            yield from form.fields

    def _there(self, found: T | None, what: str, term: Term) -> T:
        if found is None:
            raise self.lacking(what, term)
        return found

    def lacking(self, what: str, term: Term) -> UnexpectedError:
        """The error that says what this page was expected to have."""
        return UnexpectedError(
            f"The page {self.page.path} has {what} “{self.words.name(term)}”.",
            hint="Compare the page with the words of this family: boxshift probe lists what it finds.",
            status=self.page.status,
            page_says=self.note(),
        )


@dataclass(frozen=True)
class Entry:
    """What goes into a field: a text, a secret, a file; True or False for a tick; an option's text or value for a drop-down."""

    field: Field
    value: Filling


def fill(form: Form, entries: Iterable[Entry], *, press: Button | None, seconds: float = 60.0) -> Request:
    """The request that a browser would send for this form: hidden tokens and untouched fields as they are, entries on top.

    Raises:
        UnexpectedError: a field is disabled, or a drop-down does not offer the option.

    """
    wanted = {entry.field.number: entry.value for entry in entries}
    controls = _with_radio(form, wanted)
    pairs: list[tuple[str, Value]] = []
    for item in controls:
        if item.number in wanted and item.disabled:
            raise UnexpectedError(f"The field {item.labels[:1]} cannot be filled in: the page has it disabled.")
        value = _sent(item, wanted.get(item.number))
        if value is not None and item.name and not item.disabled:
            pairs.append((item.name, value))
    if press is not None and press.name:
        pairs.append((press.name, press.value))
    action = press.action if press is not None and press.action else form.action
    return Request(form.method, action, tuple(pairs), multipart=form.multipart and form.method == "POST", seconds=seconds)


def _with_radio(form: Form, wanted: dict[int, Filling]) -> tuple[Field, ...]:
    chosen = {f.name for f in form.fields if f.kind is FieldKind.RADIO and wanted.get(f.number) is True}
    return tuple(replace(f, ticked=False) if f.kind is FieldKind.RADIO and f.name in chosen else f for f in form.fields)


def _sent(item: Field, wanted: Filling | None) -> Value | None:
    if item.kind in {FieldKind.TICK, FieldKind.RADIO}:
        ticked = item.ticked if wanted is None else bool(wanted)
        return (item.value or "on") if ticked else None
    if item.kind is FieldKind.SELECT:
        return _option(item, wanted)
    if item.kind is FieldKind.FILE:
        return wanted if isinstance(wanted, Upload) else Upload(b"", "")
    if wanted is None or isinstance(wanted, bool):
        return item.value
    return wanted


def _option(item: Field, wanted: Filling | None) -> str | None:
    usable = [option for option in item.options if not option.disabled]
    if wanted is None:
        chosen = next((o for o in item.options if o.selected), usable[0] if usable else None)
    else:
        chosen = next((o for o in usable if wanted in {o.value, o.text}), None)
        if chosen is None:
            raise UnexpectedError(
                f"The drop-down {item.labels[:1]} does not offer what is needed; it has {[o.text for o in item.options]}."
            )
    return chosen.value if chosen is not None else None
