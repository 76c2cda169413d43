"""HTML in, :class:`Page` out. Takes any bytes; what is not HTML gives an empty page or an UnexpectedError, never another error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from lxml import etree, html

from kit.errors import UnexpectedError
from migrate.appliances.bomgar.forms import Button, Cell, Field, FieldKind, Form, Link, Option, Page, Row, Table

_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6", "legend", "caption"}
_SILENT = {"script", "style", "template", "noscript", "head"}
_BREAKING = {"p", "div", "br", "li", "ul", "ol", "tr", "td", "th", "table", "form", "section", "dt", "dd", "option", "label", *_HEADINGS}
_INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_NOTES = re.compile(r"(^|[\s_-])(error|errors|alert|warning|notice|message|flash|status-message)($|[\s_-])", re.IGNORECASE)
_DEAD_TYPES = {"reset", "button"}  # do nothing without a script

Element = Any  # lxml's own classes are not typed to the depth used here


def parse_page(content: bytes, *, path: str, status: int = 200) -> Page:
    """Read a page that came from ``path``.

    Raises:
        UnexpectedError: it cannot be read as HTML at all (empty, or nested beyond reason).

    """
    try:
        parser = html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
        root = html.document_fromstring(content.replace(b"\0", b""), parser=parser)
        return _Reader(root, path).page(status)
    except (etree.LxmlError, ValueError, RecursionError) as error:
        raise UnexpectedError(f"The page {path} cannot be read as HTML: {error}.", status=status) from error


@dataclass
class _Reader:
    root: Element
    path: str
    hidden: set[Element] = field(default_factory=set)
    controls: dict[Element, int] = field(default_factory=dict)
    above: dict[Element, tuple[str, ...]] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    by_id: dict[str, Element] = field(default_factory=dict)

    def page(self, status: int) -> Page:
        self._survey()
        title = self.root.find(".//title")
        forms = tuple(self._form(element) for element in self.root.iter("form"))
        tables, facts = self._tables()
        return Page(
            path=self.path,
            status=status,
            title=_squeeze(title.text_content()) if title is not None else "",
            headings=tuple(t for e in self._seen(*_HEADINGS) if (t := self.text(e))),
            links=tuple(self._link(e) for e in self._seen("a") if e.get("href")),
            forms=forms,
            tables=tables,
            facts=(*self._definitions(), *facts),
            notes=tuple(t for e in self._noticed() if (t := self.text(e))),
            text=self.text(self.root),
        )

    def _survey(self) -> None:
        """One walk: what is invisible, the order of controls, the headings above each form and table, the labels."""
        open_headings: list[tuple[int, str]] = []
        for element in self.root.iter():
            parent, tag = element.getparent(), element.tag
            if parent in self.hidden or tag in _SILENT or _is_hidden(element):
                self.hidden.add(element)
            if element.get("id"):
                self.by_id.setdefault(element.get("id"), element)
            if tag in {"input", "select", "textarea", "button"}:
                self.controls[element] = len(self.controls)
            if tag in {"h1", "h2", "h3", "h4", "h5", "h6"} and element not in self.hidden:
                level = int(tag[1])
                open_headings = [entry for entry in open_headings if entry[0] < level]
                open_headings.append((level, self.text(element)))
            if tag in {"form", "table"}:
                self.above[element] = tuple(text for _, text in open_headings)
        for label in self._seen("label"):
            if label.get("for"):
                self.labels.setdefault(label.get("for"), []).append(self.text(label, skip_controls=True))

    def _seen(self, *tags: str) -> Iterator[Element]:
        return (element for element in self.root.iter(*tags) if element not in self.hidden)

    def text(self, element: Element, *, skip_controls: bool = False) -> str:
        """The visible text in an element, spaces evened out."""
        pieces: list[str] = []
        skipped: Element = None  # the control whose content is not part of the text
        for event, part in etree.iterwalk(element, events=("start", "end")):
            if part.tag in _BREAKING:
                pieces.append(" ")
            if event == "start":
                if skip_controls and skipped is None and part.tag in {"select", "textarea", "button"}:
                    skipped = part
                if part.text and skipped is None and part not in self.hidden:
                    pieces.append(part.text)
                continue
            skipped = None if skipped is part else skipped
            if part is not element and part.tail and skipped is None and part.getparent() not in self.hidden:
                pieces.append(part.tail)
        return _squeeze("".join(pieces))

    def _noticed(self) -> Iterator[Element]:
        for element in self.root.iter():
            if element not in self.hidden and (element.get("role") in {"alert", "status"} or _NOTES.search(element.get("class") or "")):
                yield element

    def _link(self, element: Element) -> Link:
        text = self.text(element) or (element.get("aria-label") or element.get("title") or "").strip()
        under = []
        own = next(element.iterancestors("li"), None)
        for item in own.iterancestors("li", "details", "fieldset") if own is not None else ():
            first = next((part for part in item if part.tag in {"a", "span", "summary", "button", "strong", "label", *_HEADINGS}), None)
            under.append(_squeeze(item.text or "") or (self.text(first) if first is not None else ""))
        return Link(text, self._url(element.get("href")), tuple(entry for entry in reversed(under) if entry))

    def _url(self, address: str) -> str:
        base = self.root.find(".//base")
        start = urljoin(self.path, base.get("href") or "") if base is not None else self.path
        try:
            return urljoin(start, address.strip())
        except ValueError:
            return ""

    def _form(self, element: Element) -> Form:
        own = [c for c in self.controls if self._form_of(c) is element]
        inside = tuple(self.text(e) for e in element.iter(*_HEADINGS) if e not in self.hidden)
        method = (element.get("method") or "get").strip().upper()
        return Form(
            action=self._url(element.get("action") or ""),
            method=method if method in {"GET", "POST"} else "GET",
            multipart=(element.get("enctype") or "").strip().lower() == "multipart/form-data",
            fields=tuple(self._field(c) for c in own if not _is_button(c) and _type(c) not in _DEAD_TYPES),
            buttons=tuple(self._button(c) for c in own if _is_button(c) and c not in self.hidden),
            headings=(*self.above.get(element, ()), *inside),
        )

    def _form_of(self, control: Element) -> Element | None:
        named = control.get("form")
        if named is not None:
            return self.by_id.get(named)
        return next(control.iterancestors("form"), None)

    def _button(self, element: Element) -> Button:
        written = self.text(element) if element.tag == "button" else (element.get("value") or element.get("alt") or "")
        texts = (written, element.get("aria-label") or "", element.get("title") or "")
        action = element.get("formaction")
        return Button(
            number=self.controls[element],
            texts=tuple(dict.fromkeys(_squeeze(text) for text in texts if text.strip())),
            name=element.get("name") or "",
            value=element.get("value") or "",
            action=self._url(action) if action else None,
            disabled=self._disabled(element),
        )

    def _field(self, element: Element) -> Field:
        kind = _kind(element)
        options: tuple[Option, ...] = ()
        value = element.get("value") or ""
        if element.tag == "textarea":
            value = (element.text or "").removeprefix("\n")
        if kind is FieldKind.SELECT:
            options = tuple(self._option(option) for option in element.iter("option"))
        return Field(
            number=self.controls[element],
            name=element.get("name") or "",
            kind=kind,
            value=value,
            labels=() if element in self.hidden or kind is FieldKind.HIDDEN else self._labels(element),
            ticked=element.get("checked") is not None,
            disabled=self._disabled(element),
            readonly=element.get("readonly") is not None,
            options=options,
        )

    def _option(self, option: Element) -> Option:
        text = _squeeze(option.text_content())
        value = option.get("value")
        return Option(text, text if value is None else value, option.get("selected") is not None, option.get("disabled") is not None)

    def _disabled(self, element: Element) -> bool:
        if element.get("disabled") is not None or element.get("aria-disabled") == "true":
            return True
        return any(e.get("disabled") is not None for e in element.iterancestors("fieldset"))

    def _labels(self, element: Element) -> tuple[str, ...]:
        """What names a control, the best first; last what stands beside it in a table made for layout."""
        found = list(self.labels.get(element.get("id") or "", []))
        wrapped = next(element.iterancestors("label"), None)
        if wrapped is not None:
            found.append(self.text(wrapped, skip_controls=True))
        named = [self.by_id[name] for name in (element.get("aria-labelledby") or "").split() if name in self.by_id]
        if named:
            found.append(" ".join(self.text(e) for e in named))
        found += [element.get(name) or "" for name in ("aria-label", "placeholder", "title")]
        cell = next(element.iterancestors("td"), None)
        before = cell.getprevious() if cell is not None else None
        if before is not None and before.tag in {"td", "th"}:
            found.append(self.text(before))
        return tuple(dict.fromkeys(_squeeze(text) for text in found if text.strip()))

    def _definitions(self) -> Iterator[tuple[str, str]]:
        for term in self._seen("dt"):
            value = term.getnext()
            if value is not None and value.tag == "dd":
                yield self.text(term), self.text(value)

    def _tables(self) -> tuple[tuple[Table, ...], tuple[tuple[str, str], ...]]:
        tables: list[Table] = []
        facts: list[tuple[str, str]] = []
        for element in self._seen("table"):
            lines = [line for line in element.iter("tr") if next(line.iterancestors("table"), None) is element and line not in self.hidden]
            cells = [[cell for cell in line if cell.tag in {"td", "th"}] for line in lines]
            head = next((n for n, row in enumerate(cells) if len(row) > 1 and all(cell.tag == "th" for cell in row)), None)
            if head is None:
                facts += [(self.text(row[0]), self.text(row[1])) for row in cells if len(row) == 2]
                continue
            headers = tuple(self.text(cell) for cell in _spread(cells[head]))
            caption = tuple(self.text(e) for e in element.findall("caption"))
            rows = tuple(self._row(line, row) for line, row in zip(lines[head + 1 :], cells[head + 1 :], strict=True) if row)
            tables.append(Table(headers, rows, (*self.above.get(element, ()), *caption)))
        return tuple(tables), tuple(facts)

    def _row(self, line: Element, cells: list[Element]) -> Row:
        greyed = line.get("aria-disabled") == "true" or "disabled" in (line.get("class") or "").split()
        return Row(tuple(self._cell(cell) for cell in _spread(cells)), greyed)

    def _cell(self, cell: Element) -> Cell:
        controls = tuple(self.controls[e] for e in cell.iter("input", "select", "textarea", "button") if e not in self.hidden)
        links = tuple(self._link(e) for e in cell.iter("a") if e.get("href") and e not in self.hidden)
        return Cell(self.text(cell, skip_controls=True), controls, links)


def _spread(cells: list[Element]) -> Iterator[Element]:
    for cell in cells:
        span = cell.get("colspan") or "1"
        yield from [cell] * (min(int(span), 50) if span.isdecimal() and span.isascii() and int(span) > 0 else 1)


def _is_hidden(element: Element) -> bool:
    if element.tag == "input" and _type(element) == "hidden":
        return False  # belongs to its form; it has no label anyway
    return element.get("hidden") is not None or bool(_INVISIBLE.search(element.get("style") or ""))


def _is_button(element: Element) -> bool:
    if element.tag == "button":
        return _type(element) not in _DEAD_TYPES
    return element.tag == "input" and _type(element) in {"submit", "image"}


def _type(element: Element) -> str:
    return (element.get("type") or "").strip().lower()


def _kind(element: Element) -> FieldKind:
    if element.tag == "select":
        return FieldKind.SELECT
    known = {kind.value: kind for kind in FieldKind}
    return known.get(_type(element), FieldKind.TEXT) if element.tag == "input" else FieldKind.TEXT


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
