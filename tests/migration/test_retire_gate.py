"""The gate before the old box is wiped: every condition made false once. The old box is untouched each time, and its site is all there."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_certificates import make_chain
from rig import sessions_of
from theatre import SMALL, Theatre

from images.local_appliance import LocalAppliance
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]
Spoil = Callable[[Theatre], AbstractContextManager[None]]


@dataclass(frozen=True)
class Case:
    """One condition that does not hold, and words of the refusal."""

    name: str
    words: str
    spoil: Spoil
    again: bool = False


def database_of(box: LocalAppliance, name: str) -> sqlite3.Connection:
    return sqlite3.connect(box.root / "data" / f"{name}.db", timeout=30)


@contextmanager
def record_missing(theatre: Theatre) -> Iterator[None]:
    """One session that the old box has is not on the new one."""
    with closing(database_of(theatre.rig.stage.new_box, "site")) as database:
        lsid = min(sessions_of(theatre.rig.stage.old_box))
        row = database.execute("select * from session where lsid = ?", (lsid,)).fetchone()
        with database:
            assert database.execute("delete from session where lsid = ?", (lsid,)).rowcount == 1
        try:
            yield
        finally:
            with database:
                database.execute(f"insert into session values ({','.join('?' * len(row))})", row)


@contextmanager
def user_missing(theatre: Theatre) -> Iterator[None]:
    with closing(database_of(theatre.rig.stage.new_box, "site")) as database:
        row = database.execute("select * from account where name = 'user001'").fetchone()
        with database:
            database.execute("delete from account where name = 'user001'")
        try:
            yield
        finally:
            with database:
                database.execute(f"insert into account values ({','.join('?' * len(row))})", row)


@contextmanager
def another_chain(theatre: Theatre) -> Iterator[None]:
    """Somebody installed another certificate on the new box, from the same name."""
    made = make_chain("support.example.test")
    box = theatre.rig.stage.new_box
    with closing(database_of(box, "box")) as database:
        before = database.execute("select address, certificate from address").fetchall()
        box.seed({"certificate_pem": made.chain, "key_pem": made.key})
        try:
            yield
        finally:
            with database:
                database.executemany("update address set certificate = ? where address = ?", [(one, address) for address, one in before])
                database.execute("delete from certificate where id = (select max(id) from certificate)")
    box.stop()
    box.start()


@contextmanager
def backup_altered(theatre: Theatre) -> Iterator[None]:
    path = theatre.run_folder / "backup-final.nsb"
    before = path.read_bytes()
    middle = len(before) // 2
    path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def backup_gone(theatre: Theatre) -> Iterator[None]:
    path = theatre.run_folder / "backup-final.nsb"
    path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        path.with_suffix(".away").rename(path)


@contextmanager
def backup_exchanged(theatre: Theatre) -> Iterator[None]:
    """A whole backup, but not the one that was restored."""
    path = theatre.run_folder / "backup-final.nsb"
    before = path.read_bytes()
    path.write_bytes((theatre.run_folder / "backup.nsb").read_bytes())
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def record_back(theatre: Theatre) -> Iterator[None]:
    """Somebody sent visitors back to the old box."""
    address, ttl = theatre.record()
    theatre.set_record(theatre.rig.stage.old.visible, ttl)
    try:
        yield
    finally:
        theatre.set_record(address, ttl)


@contextmanager
def hold_not_over(theatre: Theatre) -> Iterator[None]:
    frozen = theatre.run_folder / "plan.yaml"
    before = frozen.read_text()
    frozen.write_text(re.sub(r"hold: \w+", "hold: 1h", before))
    try:
        yield
    finally:
        frozen.write_text(before)


@contextmanager
def guid_differs(theatre: Theatre) -> Iterator[None]:
    """The same key, the same address, the same site, and yet another box."""
    with closing(database_of(theatre.rig.stage.old_box, "box")) as database:
        before = database.execute("select value from setting where name = 'guid'").fetchone()[0]
        with database:
            database.execute("update setting set value = ? where name = 'guid'", ("0" * len(before),))
        try:
            yield
        finally:
            with database:
                database.execute("update setting set value = ? where name = 'guid'", (before,))


@contextmanager
def serial_differs(theatre: Theatre) -> Iterator[None]:
    path = theatre.rig.stage.old_box.root / "hardware.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"serial": "RA-ANOTHER"}))
    theatre.rig.stage.old_box.stop()
    theatre.rig.stage.old_box.start()
    try:
        yield
    finally:
        path.write_text(before)
        theatre.rig.stage.old_box.stop()
        theatre.rig.stage.old_box.start()


def of_new(name: str, value: str = "on") -> Spoil:
    return lambda theatre: theatre.fault(theatre.rig.stage.new_box, name, value)


@contextmanager
def new_off(theatre: Theatre) -> Iterator[None]:
    theatre.rig.stage.new_box.stop()
    try:
        yield
    finally:
        theatre.rig.stage.new_box.start()


@contextmanager
def name_server_off(theatre: Theatre) -> Iterator[None]:
    names = theatre.rig.scene.names
    names.stop_one(names.primary)
    try:
        yield
    finally:
        names.start_one(names.primary)


FALSE = (
    Case("record-missing", "1 of", record_missing, again=True),
    Case("user-missing", "users are missing", user_missing),
    Case("chain-differs", "same verified chain", another_chain),
    Case("backup-altered", "damaged", backup_altered, again=True),
    Case("backup-gone", "cannot be read", backup_gone),
    Case("backup-exchanged", "changed since it was taken", backup_exchanged),
    Case("record-points-back", "leads to", record_back),
    Case("hold-not-over", "hold time", hold_not_over, again=True),
    Case("guid-differs", "is not the box that was inspected", guid_differs, again=True),
    Case("serial-differs", "is not the box that was inspected", serial_differs),
    Case("new-unhealthy", "not healthy", of_new("unhealthy")),
    Case("new-off", "could not be told", new_off),
    Case("name-server-off", "could not be told", name_server_off),
)


@pytest.fixture(scope="module")
def watched(theatre: Theatre) -> Theatre:
    """The run waits for the word that ends the old box."""
    theatre.at("watched")
    return theatre


APPROVED = {"approve-retire": {"approved_by": "operator", "note": "", "at": 0.0}}


@pytest.mark.parametrize("case", FALSE, ids=lambda case: case.name)
def test_the_gate_stays_shut(watched: Theatre, case: Case) -> None:
    with case.spoil(watched):
        outcome = watched.execute("retire-gate", APPROVED)
        assert outcome.error is not None, outcome.value
        assert outcome.error["code"] == "retire-gate"
        assert case.words in str(outcome.error["sentence"]), outcome.error
        assert outcome.error["hint"], outcome.error
        if case.again:  # the reset itself looks once more, right before its last button
            assert watched.execute("factory-reset", APPROVED).error is not None
    verify_old_is_whole(watched)


def test_the_gate_stays_shut_without_an_approval(watched: Theatre) -> None:
    outcome = watched.execute("retire-gate")
    assert outcome.error is not None
    assert outcome.error["code"] == "retire-gate"
    assert "nobody approved it" in str(outcome.error["sentence"])
    assert watched.execute("retire-gate", APPROVED).ok, "the gate must open when nothing is wrong, or these tests prove nothing"


def verify_old_is_whole(theatre: Theatre) -> None:
    """Its GUID and its users, read back."""
    status = theatre.rig.status()
    value = status.node("read-old").value
    assert isinstance(value, dict)
    inspected = value["value"]["identity"]["guid"]  # type: ignore[index, call-overload]
    with theatre.open_old() as old:
        assert old.read_identity().guid == inspected
        content = old.read_content()
    assert len(content.users or ()) == SMALL.users
    assert len(content.sessions or ()) >= SMALL.sessions
    assert not (theatre.run_folder / "reset.started").exists()


def test_another_box_at_the_old_address_is_not_touched_and_the_way_back_stays_open(theatre: Theatre, tmp_path: Path, vendor: Path) -> None:
    theatre.at("watched")
    stage = theatre.rig.stage
    stage.old_box.stop()
    impostor = LocalAppliance(tmp_path / "impostor", stage.old.admin, (stage.old.inside,), stage.port, "current", vendor)
    with impostor:
        impostor.seed({"users": 4, "site_name": "innocent.example.test", "site_password": "x y z 1", "appliance_password": "x y z 2"})
        answer = theatre.on_plan("approve", "--json")
        assert answer.code == 3, answer.all
        status = theatre.rig.status()
        assert status.state is RunState.DECISION
        assert status.node("factory-reset").state is NodeState.PENDING
        with closing(database_of(impostor, "site")) as database:
            assert database.execute("select count(*), sum(failed) from account").fetchone() == (4, 0)
        with closing(database_of(impostor, "box")) as database:
            assert database.execute("select sum(failed) from account").fetchone() == (0,)
    stage.old_box.start()
    # The gate that was passed by a person stays passed; a retry looks at every condition again.
    back = theatre.on_plan("rollback", "--json")
    assert back.code == 0, back.all
    assert back.json["state"] == "rolled back"
    theatre.verify_old_in_service()
