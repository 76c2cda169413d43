"""The contract's part about failover pairs, tried on two local boxes, by the words of both languages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from stands import HOSTILE, OWN, Stand, local_stand

from kit.progress import Silent
from kit.secret import Secret
from migrate.appliances.bomgar.driver import BomgarAppliance
from migrate.appliances.bomgar.probe import Presence, probe_box
from migrate.appliances.contract import Account, PairPlace
from migrate.appliances.errors import DataSyncFailedError, FailoverRefusedError, LoginRefusedError, RoleChangeFailedError
from migrate.facts import FailoverRole, WorkState

pytestmark = [pytest.mark.process, pytest.mark.network]
KEY = Secret(HOSTILE + " pre-shared")


@dataclass
class TwoStands:
    """Two boxes; ``a`` is filled. ``places``: where each answers the other. ``shared``: an address of both, on at ``a``."""

    a: Stand
    b: Stand
    shared: str
    faults: list[tuple[Stand, str]] = field(default_factory=list)

    def place(self, stand: Stand) -> PairPlace:
        return PairPlace(stand.endpoint.host, stand.endpoint.port)

    def pair(self) -> tuple[BomgarAppliance, BomgarAppliance]:
        """Both, established, with ``a`` as the primary, through the API and the pages."""
        a, b = self.a.open_with_api(), self.b.open_with_api()
        a.establish_failover(self.place(self.b), self.place(self.a))
        return a, b

    def fault(self, stand: Stand, name: str, value: str = "on") -> None:
        """Switch a fault that is switched off after the test."""
        self.faults.append((stand, name))
        stand.fault(name, value)

    def separate(self) -> None:
        """No faults, and no pair."""
        for stand, name in self.faults:
            stand.fault(name, "off")
        self.faults.clear()
        for stand in (self.b, self.a):
            stand.open().break_failover()


ENGLISH = pytest.mark.parametrize("stands", ["en"], indirect=True, scope="module")
BOTH = pytest.mark.parametrize("stands", ["en", "es"], indirect=True, scope="module")  # what reads and presses everything


@pytest.fixture(scope="module")
def stands(
    request: pytest.FixtureRequest, vendor: Path, update_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoStands]:
    folder = tmp_path_factory.mktemp("pair")
    with contextlib.ExitStack() as stack:
        a, b = (stack.enter_context(local_stand("current", request.param, folder / name, vendor, update_server)) for name in "ab")
        a.settle(users=4, sessions=20, recordings=3, file_items=7, jump_clients=3, preshared_key=KEY.reveal())
        b.settle(spare_addresses=[a.service], preshared_key=KEY.reveal())
        yield TwoStands(a, b, a.service)


@pytest.fixture
def two(stands: TwoStands) -> Iterator[TwoStands]:
    yield stands
    stands.separate()


class Told(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, text: str, **_: object) -> None:
        self.said.append(text)


@BOTH
def test_a_box_in_no_pair_says_so(two: TwoStands) -> None:
    facts = two.a.open().read_failover()
    assert (facts.role, facts.peer, facts.conflict, facts.last_sync) == (FailoverRole.NONE, "", False, None)
    assert {row.address for row in facts.shared} == {two.shared}
    with pytest.raises(FailoverRefusedError):
        two.a.open().sync_now(progress=Silent())


@ENGLISH
def test_the_key_is_set_and_never_shown_and_a_differing_one_is_refused(two: TwoStands, caplog: pytest.LogCaptureFixture) -> None:
    a, b = two.a.open(), two.b.open()
    b.set_pre_shared_key(Secret("another one"))
    with pytest.raises(FailoverRefusedError) as caught:
        a.establish_failover(two.place(two.b), two.place(two.a))
    assert KEY.reveal() not in f"{caught.value} {caught.value.facts} {caplog.text}"
    assert a.read_failover().role is FailoverRole.NONE
    b.set_pre_shared_key(KEY)
    b.set_pre_shared_key(KEY)


@BOTH
def test_the_whole_life_of_a_pair(two: TwoStands) -> None:
    a, b = two.pair()
    assert a.establish_failover(two.place(two.b), two.place(two.a)).role is FailoverRole.PRIMARY
    for box in (a, b):
        facts = box.share_addresses([two.shared])
        assert [row.address for row in facts.shared if row.shared] == [two.shared]
    synced = a.sync_now(progress=Silent())
    assert (synced.role, synced.peer_role, synced.sync) == (FailoverRole.PRIMARY, FailoverRole.BACKUP, WorkState.FINISHED)
    assert synced.last_sync is not None
    ours, theirs = a.read_content(), b.read_content()
    assert replace(theirs, jump_clients=None) == replace(ours, jump_clients=None)
    # Clients are connected to the primary.
    assert [(one.name, one.last_seen) for one in theirs.jump_clients or ()] == [
        (one.name, one.last_seen) for one in ours.jump_clients or ()
    ]
    assert (a.read_facts().failover_role, b.read_facts().failover_role) == ("primary", "backup")

    swapped = b.set_failover_role(FailoverRole.PRIMARY, data_sync_first=True, progress=Silent())
    assert (swapped.role, swapped.peer_role, swapped.role_change) == (FailoverRole.PRIMARY, FailoverRole.BACKUP, WorkState.FINISHED)
    assert [row.enabled for row in swapped.shared if row.shared] == [True]
    assert [row.enabled for row in a.read_failover().shared if row.shared] == [False]
    assert b.set_failover_role(FailoverRole.PRIMARY, data_sync_first=True, progress=Silent()) == b.read_failover()
    back = b.set_failover_role(FailoverRole.BACKUP, data_sync_first=True, progress=Silent())
    assert (back.role, back.peer_role) == (FailoverRole.BACKUP, FailoverRole.PRIMARY)

    for _ in range(2):
        assert a.break_failover().role is FailoverRole.NONE
    assert b.read_failover().role is FailoverRole.NONE


@ENGLISH
def test_the_same_by_pages_alone(two: TwoStands) -> None:
    two.pair()
    a, b = two.a.open(), two.b.open()
    b.sync_now(progress=Silent())
    assert b.set_failover_role(FailoverRole.PRIMARY, data_sync_first=True, progress=Silent()).role is FailoverRole.PRIMARY
    assert a.read_facts().failover_role == "backup"
    assert a.set_failover_role(FailoverRole.PRIMARY, data_sync_first=False, progress=Silent()).role is FailoverRole.PRIMARY
    assert b.read_failover().role is FailoverRole.BACKUP


@ENGLISH
def test_a_data_sync_is_waited_for_to_its_real_end_and_one_that_runs_already_is_not_taken_for_it(two: TwoStands) -> None:
    a, b = two.pair()
    first = b.sync_now(progress=Silent())
    two.fault(two.b, "sync-seconds", "1")
    told = Told()
    second = a.sync_now(progress=told)
    assert (second.sync_ended or 0) > (first.sync_ended or 0)
    assert any("%" in text for text in told.said)
    two.b.fault("sync-seconds", "off")
    two.fault(two.b, "sync-fails")
    with pytest.raises(DataSyncFailedError):
        a.sync_now(progress=Silent())
    assert a.read_failover().last_sync == second.last_sync


@ENGLISH
def test_after_a_data_sync_the_backup_knows_the_primarys_accounts_and_not_its_own(two: TwoStands) -> None:
    two.b.seed({"site_password": HOSTILE + " other"})
    own = replace(OWN, site=Account("admin", Secret(HOSTILE + " other")))
    two.a.open().establish_failover(two.place(two.b), two.place(two.a))
    with contextlib.closing(two.b.open(own)) as b:
        b.sync_now(progress=Silent())
    with pytest.raises(LoginRefusedError):
        two.b.open(own).read_failover()
    assert two.b.open().read_failover().role is FailoverRole.BACKUP


@BOTH
def test_a_peer_that_does_not_answer_is_named_and_may_be_overridden_only_with_force(two: TwoStands) -> None:
    a, b = two.pair()
    two.fault(two.b, "peer-silent")
    facts = a.read_failover()
    assert facts.peer_role is None
    assert facts.peer_note
    with pytest.raises(FailoverRefusedError):
        a.set_failover_role(FailoverRole.BACKUP, data_sync_first=False, progress=Silent())
    assert a.read_failover().role is FailoverRole.PRIMARY
    forced = a.set_failover_role(FailoverRole.BACKUP, data_sync_first=False, force=True, progress=Silent())
    assert forced.role is FailoverRole.BACKUP
    two.b.fault("peer-silent", "off")
    assert a.read_failover().conflict
    for _ in range(2):
        assert not b.resolve_conflict().conflict
    assert {a.read_failover().role, b.read_failover().role} == {FailoverRole.PRIMARY, FailoverRole.BACKUP}


@ENGLISH
@pytest.mark.parametrize("leader", ["primary", "backup"])
def test_a_change_of_roles_that_fails_is_an_error_wherever_it_was_asked_for(two: TwoStands, leader: str) -> None:
    a, b = two.pair()
    b.sync_now(progress=Silent())
    two.fault(two.b, "sync-fails")
    box, role = (a, FailoverRole.BACKUP) if leader == "primary" else (b, FailoverRole.PRIMARY)
    with pytest.raises(RoleChangeFailedError):
        box.set_failover_role(role, data_sync_first=True, progress=Silent())
    assert (a.read_failover().role, b.read_failover().role) == (FailoverRole.PRIMARY, FailoverRole.BACKUP)
    two.b.fault("sync-fails", "off")
    assert box.set_failover_role(role, data_sync_first=True, progress=Silent()).role is role


@BOTH
def test_the_probe_knows_the_pages_of_a_pair(two: TwoStands) -> None:
    two.pair()
    for stand in (two.a, two.b):
        probe = probe_box(stand.endpoint, OWN, language=stand.language)
        assert probe.missing == ()
        there = {row.what for row in probe.rows if row.presence is Presence.THERE}
        assert {"failover", "site security"} <= there
        assert sum(what.startswith("failover: ") for what in there) >= 8
