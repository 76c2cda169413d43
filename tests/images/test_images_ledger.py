from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from images.domain import Forward
from images.errors import SpecError
from images.home import Home
from images.ledger import Entry, EntryState, Ledger
from kit.errors import FailedError

ENTRY = Entry(
    "r1", "old", "u-1", "m-1", "52:54:00:00:00:01", EntryState.PLANNED, "abc", 768, 1, (Forward("127.0.3.1", 1, "10.0.2.15", 443),)
)


def test_an_entry_reads_back_whole_also_through_another_ledger_object(home: Home, hostile_password: str) -> None:
    entry = replace(ENTRY, request=hostile_password)
    Ledger(home.ledger).add(entry)
    again = Ledger(home.ledger)
    assert again.find_request(hostile_password) == again.find_name("old") == entry
    assert again.find_name("nobody") is None


def test_the_file_is_private(home: Home) -> None:
    Ledger(home.ledger).add(ENTRY)
    assert stat.S_IMODE(home.ledger.stat().st_mode) == 0o600


def test_the_owner_id_stays_the_same(home: Home) -> None:
    assert Ledger(home.ledger).read_owner() == Ledger(home.ledger).read_owner() != ""


@pytest.mark.parametrize("other", [{"request": "r2"}, {"request": "r2", "uuid": "u-2"}, {"name": "new", "uuid": "u-2"}])
def test_names_requests_and_uuids_are_unique(home: Home, other: dict[str, str]) -> None:
    ledger = Ledger(home.ledger)
    ledger.add(ENTRY)
    with pytest.raises(SpecError):
        ledger.add(replace(ENTRY, **other))
    assert ledger.list_entries() == (ENTRY,)


def test_states_change_and_entries_go(home: Home) -> None:
    ledger = Ledger(home.ledger)
    ledger.add(ENTRY)
    assert ledger.change_state(ENTRY, EntryState.RETIRED).state is EntryState.RETIRED
    assert ledger.find_name("old").state is EntryState.RETIRED
    ledger.delete(ENTRY)
    assert ledger.list_entries() == ()


def test_a_damaged_file_is_one_clear_sentence(home: Home) -> None:
    home.ledger.write_bytes(b"no database" * 100)
    with pytest.raises(FailedError, match="could not be used"):
        Ledger(home.ledger).list_entries()
