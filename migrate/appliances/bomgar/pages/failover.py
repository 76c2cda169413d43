"""Management > Failover and Management > Security of /login: the pair, its data syncs and its roles."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kit.errors import UnexpectedError
from kit.secret import Secret
from migrate.appliances.bomgar.catalogue import FAILOVER, SITE_SECURITY
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.forms import Entry, Field, FieldKind, Form, Table, View, fill
from migrate.appliances.bomgar.pages.basics import parse_time
from migrate.appliances.bomgar.words import Term
from migrate.appliances.contract import PairPlace
from migrate.appliances.errors import FailoverRefusedError
from migrate.appliances.http import Request
from migrate.facts import FailoverFacts, FailoverRole, SharedAddress, WorkState

_ROLES = ((Term.NONE, FailoverRole.NONE), (Term.PRIMARY, FailoverRole.PRIMARY), (Term.BACKUP, FailoverRole.BACKUP))
_STATES = (
    (Term.RUNNING, WorkState.RUNNING),
    (Term.FINISHED, WorkState.FINISHED),
    (Term.WELL, WorkState.FINISHED),
    (Term.FAILED, WorkState.FAILED),
    (Term.NONE, WorkState.NEVER),
)
_SLOW = 180.0  # seconds that a page may take which changes the roles of two boxes


def read_failover(console: Console) -> FailoverFacts:
    """The page, as facts."""
    return parse_failover(console.open(FAILOVER))


def parse_failover(view: View) -> FailoverFacts:
    """What the page says.

    Raises:
        UnexpectedError: it does not tell the role, or a state in known words.

    """
    role = need_role(view)
    peer_role = find_role(view, Term.PEER_STATUS)
    return FailoverFacts(
        role=role,
        peer=view.find_fact(Term.PEER_HOST) or "",
        peer_role=peer_role,
        peer_note="" if peer_role is not None else view.find_fact(Term.PEER_STATUS) or "",
        conflict=view.find_button(Term.FIX_ERROR) is not None or view.words.find_phrase(Term.CONFLICT_NOTE, view.page.text),
        sync=_state(view, Term.DATA_SYNC_STATUS),
        sync_note=view.find_fact(Term.DATA_SYNC_DETAILS) or "",
        sync_percent=_percent(view.find_fact(Term.DATA_SYNC_PROGRESS)),
        sync_ended=_moment(view, Term.DATA_SYNC_ENDED),
        last_sync=_moment(view, Term.LAST_DATA_SYNC),
        role_change=_state(view, Term.LAST_ROLE_CHANGE),
        role_change_note=view.find_fact(Term.ROLE_CHANGE_DETAILS) or "",
        shared=_shared(view),
    )


def read_role(console: Console) -> FailoverRole:
    """The role alone, whatever else the page says."""
    return need_role(console.open(FAILOVER))


def need_role(view: View) -> FailoverRole:
    """The role of this site; a page that offers to establish a relationship, and none to break, is of a site in no pair.

    Raises:
        UnexpectedError: the page does not tell.

    """
    role = find_role(view, Term.FAILOVER_ROLE) or find_role(view, Term.HOST_STATUS)
    if role is not None:
        return role
    if view.find_button(Term.ESTABLISH_FAILOVER) is not None and view.find_button(Term.BREAK_FAILOVER) is None:
        return FailoverRole.NONE
    raise view.lacking("nothing known under", Term.FAILOVER_ROLE)


def find_role(view: View, term: Term) -> FailoverRole | None:
    """The role beside this label; None where it is not there, or is no role."""
    shown = view.find_fact(term)
    return next((role for word, role in _ROLES if shown is not None and view.words.match(word, shown)), None)


def _state(view: View, term: Term) -> WorkState:
    shown = view.find_fact(term)
    if shown is None:
        return WorkState.NEVER
    found = next((state for word, state in _STATES if view.words.match(word, shown)), None)
    if found is None:
        raise UnexpectedError(f"The page {view.page.path} says {shown!r} beside “{view.words.name(term)}”, which is not known.")
    return found


def _percent(shown: str | None) -> int | None:
    found = re.match(r"\s*(\d{1,3})\s*%", shown or "")
    return int(found.group(1)) if found else None


def _moment(view: View, term: Term) -> float | None:
    shown = view.find_fact(term) or ""
    moment = parse_time(shown)
    if moment is None and shown and not view.words.match(Term.NONE, shown):
        raise UnexpectedError(f"The page {view.page.path} shows a time that cannot be read: {shown!r}.")
    return moment.timestamp() if moment is not None else None


def _shared(view: View) -> tuple[SharedAddress, ...]:
    table = _shared_table(view)
    if table is None:
        return ()
    found = []
    for row in table.rows:
        address = table.text(row, view.words, Term.IP_ADDRESS)
        tick = next((one for _, one in view.in_row(row) if isinstance(one, Field) and one.kind is FieldKind.TICK), None)
        if address and tick is not None:
            enabled = view.words.match(Term.YES, table.text(row, view.words, Term.ENABLED))
            found.append(SharedAddress(address, shared=tick.ticked, enabled=enabled))
    return tuple(found)


def _shared_table(view: View) -> Table | None:
    return view.find_table(Term.SHARED, Term.IP_ADDRESS)


# what is pressed


def establish(console: Console, peer: PairPlace, reverse: PairPlace) -> None:
    """Fill in both ends and press the button; this site becomes the primary."""
    view = console.open(FAILOVER)
    form, button = view.need_button(Term.ESTABLISH_FAILOVER)
    hosts, ports = _fields(view, form, Term.CONNECTION_HOST), _fields(view, form, Term.TLS_PORT)
    if len(hosts) != 2 or len(ports) != 2:
        raise UnexpectedError(
            f"The page {view.page.path} has {len(hosts)} and {len(ports)} fields for the two ends of a pair, not two of each.",
            page_says=view.note(),
        )
    # The page asks first how to reach the new backup, then how that one reaches this primary.
    values = ((hosts[0], peer.host), (ports[0], str(peer.port)), (hosts[1], reverse.host), (ports[1], str(reverse.port)))
    _press(console, fill(form, [Entry(one, value) for one, value in values], press=button, seconds=_SLOW), "the relationship")


def _fields(view: View, form: Form, term: Term) -> list[Field]:
    return [one for one in form.fields if one.kind is FieldKind.TEXT and view.words.match_any(term, one.labels)]


def press_button(console: Console, term: Term, what: str, ticks: Sequence[tuple[Term, bool]] = ()) -> View:
    """Press one of the page's buttons, with tick boxes of its form; the page that comes back.

    Raises:
        FailoverRefusedError: the box does not do it; says why in its words.

    """
    view = console.open(FAILOVER)
    form, button = view.need_button(term)
    entries = [Entry(view.need_field(form, label, kinds=(FieldKind.TICK,)), value) for label, value in ticks]
    return _press(console, fill(form, entries, press=button, seconds=_SLOW), what)


def _press(console: Console, request: Request, what: str) -> View:
    after = console.press(request)
    if after.page.status >= 400:
        raise FailoverRefusedError(
            f"{console.client.where} refuses {what}: {after.note() or 'it does not say why'}",
            hint="Look at Management > Failover and at the clock of both boxes.",
            status=after.page.status,
        )
    return after


def share_addresses(console: Console, addresses: Sequence[str]) -> None:
    """Tick exactly these addresses as shared."""
    view = console.open(FAILOVER)
    table = _shared_table(view)
    missing = set(addresses) - {row.address for row in _shared(view)}
    if table is None or missing:
        raise FailoverRefusedError(
            f"{console.client.where} has no address {', '.join(sorted(missing)) or 'that could be shared'}.",
            hint="Both boxes need a shared address under Networking > IP Configuration: enabled at the primary, disabled at the backup.",
        )
    entries, forms = [], []
    for row in table.rows:
        address = table.text(row, view.words, Term.IP_ADDRESS)
        for form, one in view.in_row(row):
            if isinstance(one, Field) and one.kind is FieldKind.TICK:
                entries.append(Entry(one, address in addresses))
                forms.append(form)
    button = next((b for b in forms[0].buttons if view.words.match_any(Term.SAVE_CHANGES, b.texts)), None)
    if button is None:
        raise view.lacking("no button", Term.SAVE_CHANGES)
    _press(console, fill(forms[0], entries, press=button, seconds=_SLOW), "the shared addresses")


def is_key_set(console: Console) -> bool | None:
    """Whether the page says that a pre-shared key is set; None where it does not tell. The key itself is never shown."""
    view = console.open(SITE_SECURITY)
    shown = view.find_fact(Term.PRE_SHARED_KEY)
    if shown is None:
        return None
    return view.words.match(Term.IS_SET, shown)


def set_key(console: Console, key: Secret) -> None:
    """Write the pre-shared key into its field and save."""
    view = console.open(SITE_SECURITY)
    for form in view.page.forms:
        field = view.find_field(form, Term.PRE_SHARED_KEY, kinds=(FieldKind.PASSWORD, FieldKind.TEXT))
        button = next((b for b in form.buttons if view.words.match_any(Term.SAVE_CHANGES, b.texts)), None)
        if field is not None and button is not None:
            _press(console, fill(form, (Entry(field, key),), press=button), "the pre-shared key")
            return
    raise view.lacking("no field", Term.PRE_SHARED_KEY)
