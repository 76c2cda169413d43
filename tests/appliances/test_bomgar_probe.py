"""The probe: everything that the driver needs is found on every kind of box, what is missing is named, and nothing is changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pki import make_bundle
from stands import FACTORY, HOSTILE, OWN, Stand
from tls_servers import page, scripted

from kit.errors import UnreachableError
from kit.secret import Secret
from migrate.appliances.bomgar.probe import Presence, probe_box
from migrate.appliances.contract import Account, Credentials, Endpoint
from migrate.appliances.errors import WrongKeyError


class TestOnEveryKindOfBox:
    language = "es"  # on the virtual machine

    def test_nothing_that_is_needed_is_missing_and_nothing_changes(self, stand: Stand) -> None:
        box = stand.open_with_api()
        before = (box.read_content(), box.read_certificates(), box.read_addresses(), box.read_versions())
        found = probe_box(stand.endpoint, OWN, language=stand.language)
        assert found.missing == ()
        assert all(row.presence is not Presence.UNKNOWN for row in found.rows), found.rows
        assert found.tls_spki_sha256 == box.read_identity().tls_spki_sha256
        assert {"en", "es"} <= set(found.languages)
        assert before == (box.read_content(), box.read_certificates(), box.read_addresses(), box.read_versions())

    def test_without_a_login_the_inner_pages_are_unknown_not_there(self, stand: Stand) -> None:
        found = probe_box(stand.endpoint, language=stand.language)
        inner = {row.what: row.presence for row in found.rows if row.where != "API" and row.what != "landing page"}
        assert set(inner.values()) == {Presence.UNKNOWN}
        assert {row.presence for row in found.rows if row.what == "landing page"} == {Presence.THERE}


@pytest.mark.process
@pytest.mark.network
def test_a_wrong_password_is_one_row_and_one_try(one_stand: Stand) -> None:
    one_stand.settle()
    account = Account("admin", Secret(HOSTILE + " no"))
    for _ in range(7):
        found = probe_box(one_stand.endpoint, Credentials(account, account))
        assert [row.what for row in found.rows if row.presence is Presence.UNKNOWN].count("login") == 2
    one_stand.open().verify_access()


@pytest.mark.process
@pytest.mark.network
def test_a_new_box_is_not_given_a_password_by_the_probe(one_stand: Stand) -> None:
    found = probe_box(one_stand.endpoint, FACTORY)
    assert [row.presence for row in found.rows if row.what == "login"] == [Presence.UNKNOWN] * 2
    one_stand.open().ensure_first_login(FACTORY)


@pytest.mark.process
@pytest.mark.network
def test_another_key_is_not_looked_at(one_stand: Stand) -> None:
    with pytest.raises(WrongKeyError):
        probe_box(replace(one_stand.endpoint, pins=("ab" * 32,)), OWN)


@pytest.mark.network
def test_a_box_of_another_kind_lacks_what_is_needed(tmp_path: Path) -> None:
    with scripted(lambda _: page("<h1>Welcome to nginx!</h1>"), tmp_path, make_bundle()) as server:
        found = probe_box(server.endpoint)
    missing = {row.what for row in found.missing}
    assert "landing page" in missing
    assert "/api/backup" in missing
    assert found.languages == ()


@pytest.mark.network
def test_nobody_there_is_an_error() -> None:
    with pytest.raises(UnreachableError):
        probe_box(Endpoint("127.0.0.1", 1))
