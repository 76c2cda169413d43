"""Networking > IP Configuration of /appliance."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from kit.errors import RefusedError, RejectedError, UnexpectedError
from migrate.appliances.bomgar.catalogue import NETWORK
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.forms import Entry, FieldKind, Row, Table, View, fill
from migrate.appliances.bomgar.patience import enforce, ensure
from migrate.appliances.bomgar.words import Term
from migrate.appliances.http import Request
from migrate.facts import BoxAddress

COLUMNS = (Term.IP_ADDRESS, Term.SUBNET_MASK, Term.ENABLED)


def read_addresses(console: Console) -> tuple[BoxAddress, ...]:
    """All addresses, in the page's order."""
    return _parse(console.open(NETWORK))


def prepare_address(console: Console, wanted: BoxAddress) -> Callable[[], None]:
    """All that can be done ahead of the change; the call makes the box have this address with this prefix and state, and looks.

    Raises:
        RefusedError: it is the last enabled one, or the one that is talked to, and shall be disabled.
        RejectedError: the box does not take it (by the call).

    """
    if not wanted.enabled:
        _verify_may_go(console, wanted)

    # By the button: mostly this very page as it is then, so that nobody waits while it is opened once more.
    answered: list[View] = []

    def look() -> BoxAddress | None:
        view = answered.pop() if answered else console.open(NETWORK)
        return next((row for row in _parse(view) if row == wanted), None)

    def press(request: Request) -> None:
        view = _press(console, wanted, request)
        answered[:] = [view] if view.find_table(*COLUMNS) else []

    ready = [] if look() is not None else [_fill(console, wanted)]

    def save() -> None:
        if ready:
            try:
                press(ready.pop())
            except RejectedError:  # another form was sent since, and this one was too old for that: the page as it is now tells
                if look() is None:
                    save()
            return
        press(_fill(console, wanted))

    def change() -> None:
        make_so = enforce if ready else ensure
        make_so(look, save, what=f"the address {wanted.address}/{wanted.prefix}", timeout=60)

    return change


def _verify_may_go(console: Console, wanted: BoxAddress) -> None:
    others = [row for row in read_addresses(console) if row.enabled and not _equal(row.address, wanted.address)]
    endpoint = console.client.endpoint
    if not others or _equal(endpoint.inside or endpoint.host, wanted.address):
        raise RefusedError(
            f"The address {wanted.address} of {console.client.where} is the one that the box is administered through; it stays enabled.",
            hint="Only service addresses can be switched off.",
        )


def _press(console: Console, wanted: BoxAddress, request: Request) -> View:
    after = console.press(request)
    if after.page.status >= 400:
        raise RejectedError(f"{console.client.where} does not take the address {wanted.address}: {after.note()}", status=after.page.status)
    return after


def _fill(console: Console, wanted: BoxAddress) -> Request:
    view = console.open(NETWORK)
    table = _table(view)
    row = next((row for row in table.rows if _equal(table.text(row, view.words, Term.IP_ADDRESS), wanted.address)), None)
    return _add(view, wanted) if row is None else _change(console, view, row, wanted)


def _add(view: View, wanted: BoxAddress) -> Request:
    form, button = view.need_button(Term.ADD_ADDRESS)
    address = view.need_field(form, Term.IP_ADDRESS, kinds=(FieldKind.TEXT,))
    mask = view.need_field(form, Term.SUBNET_MASK, kinds=(FieldKind.TEXT,))
    enabled = view.need_field(form, Term.ENABLED, kinds=(FieldKind.TICK,))
    entries = (Entry(address, wanted.address), Entry(mask, _mask(wanted)), Entry(enabled, wanted.enabled))
    return fill(form, entries, press=button, seconds=120)


def _change(console: Console, view: View, row: Row, wanted: BoxAddress) -> Request:
    link = next((link for link in row.links if view.words.match(Term.EDIT, link.text) or _equal(link.text, wanted.address)), None)
    if link is None:
        raise view.lacking("no link", Term.EDIT)
    page = console.follow(link)
    shown = page.find_fact(Term.IP_ADDRESS)
    if shown is None or not _equal(shown, wanted.address):
        raise UnexpectedError(f"The page {page.page.path} is not the one of the address {wanted.address}.")
    form, button = page.need_button(Term.SAVE_CHANGES)
    mask = page.need_field(form, Term.SUBNET_MASK, kinds=(FieldKind.TEXT,))
    enabled = page.need_field(form, Term.ENABLED, kinds=(FieldKind.TICK,))
    return fill(form, (Entry(mask, _mask(wanted)), Entry(enabled, wanted.enabled)), press=button, seconds=120)


def _table(view: View) -> Table:
    return view.need_table(*COLUMNS)


def _parse(view: View) -> tuple[BoxAddress, ...]:
    table = _table(view)
    return tuple(_parse_row(view, table, row) for row in table.rows if table.text(row, view.words, Term.IP_ADDRESS))


def _parse_row(view: View, table: Table, row: Row) -> BoxAddress:
    address, mask = table.text(row, view.words, Term.IP_ADDRESS), table.text(row, view.words, Term.SUBNET_MASK)
    try:
        one = ipaddress.ip_interface(f"{address}/{mask.lstrip('/')}")
    except ValueError as error:
        raise UnexpectedError(f"The page {view.page.path} shows an address that cannot be read: {address!r}, {mask!r}.") from error
    return BoxAddress(str(one.ip), one.network.prefixlen, _is_enabled(view, table, row))


def _is_enabled(view: View, table: Table, row: Row) -> bool:
    cell = table.cell(row, view.words, Term.ENABLED)
    text = cell.text if cell is not None else ""
    if view.words.match(Term.YES, text):
        return True
    if view.words.match(Term.NO, text):
        return False
    ticks = [c for _, c in view.in_row(row) if cell is not None and c.number in cell.controls]
    if len(ticks) == 1 and hasattr(ticks[0], "ticked"):
        return bool(ticks[0].ticked)
    raise view.lacking("no yes or no in the column", Term.ENABLED)


def _mask(wanted: BoxAddress) -> str:
    """As a dotted mask for IPv4, which every version takes; as a prefix for IPv6."""
    network = ipaddress.ip_network(f"{wanted.address}/{wanted.prefix}", strict=False)
    return str(network.netmask) if network.version == 4 else str(wanted.prefix)


def _equal(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one.strip()) == ipaddress.ip_address(other.strip())
    except ValueError:
        return False
