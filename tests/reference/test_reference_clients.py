"""The client side of the reference appliance: slots of upgrades, their software, and who is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from browsing import Browser
from reference_boxes import PASSWORD, SEED, Maker, look

from images.local_appliance import LocalAppliance

pytestmark = [pytest.mark.process, pytest.mark.network]
CLIENTS = 230
SECRET = str(SEED["jump_client_secret"])


@pytest.fixture(scope="module")
def box(shared_boxes: Maker) -> LocalAppliance:
    made = shared_boxes()
    made.seed(SEED | {"jump_clients": CLIENTS, "upgrade_slots": 2})
    return made


@pytest.fixture
def client(box: LocalAppliance) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=box.url, verify=False, timeout=30) as made:
        yield made


def check_in(client: httpx.Client, number: int, version: str) -> dict[str, Any]:
    answer = client.post("/client/checkin", json={"client": f"jump-{number:04d}", "secret": SECRET, "version": version})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    assert ("retry" in found) == ("Retry-After" in answer.headers)
    return found


def fetch(client: httpx.Client, number: int, **headers: str) -> httpx.Response:
    return client.get("/client/update", auth=(f"jump-{number:04d}", SECRET), headers=headers)


def listed(client: httpx.Client, **wanted: object) -> tuple[list[dict[str, Any]], httpx.Headers]:
    token = client.post(
        "/oauth2/token",
        auth=(str(SEED["api_client_id"]), str(SEED["api_client_secret"])),
        data={"grant_type": "client_credentials"},
    ).json()["access_token"]
    answer = client.get("/api/config/v1/jump-client", params=wanted, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    return answer.json(), answer.headers


def test_a_slot_is_free_again_with_the_new_version_or_when_its_client_is_not_heard_of(box: LocalAppliance, client: httpx.Client) -> None:
    assert [check_in(client, number, "20.1.1")["update"] for number in (1, 2, 3)] == ["21.1.1", "21.1.1", None]
    waiting = check_in(client, 3, "20.1.1")
    assert (waiting["wanted"], waiting["retry"] > 0) == ("21.1.1", True)
    refused = fetch(client, 3)
    assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (503, True)
    assert check_in(client, 1, "21.1.1") == {"update": None}
    assert check_in(client, 3, "20.1.1")["update"] == "21.1.1"
    box.fault("clock", "61")
    try:
        assert check_in(client, 4, "20.1.1")["update"] == "21.1.1", "nobody has heard of 2 and 3 for more than a minute"
        assert fetch(client, 2).status_code == 200, "who is late may ask again"
        assert check_in(client, 5, "20.1.1")["update"] is None
    finally:
        box.fault("clock", "off")
        for number in range(1, 6):
            check_in(client, number, "21.1.1")


def test_an_update_is_handed_out_whole_and_in_parts_to_who_may_have_it(client: httpx.Client) -> None:
    offer = check_in(client, 6, "20.1.1")
    whole = fetch(client, 6).content
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (offer["size"], offer["sha256"])
    rest = fetch(client, 6, Range="bytes=60000-")
    assert (rest.status_code, rest.content) == (206, whole[60000:])
    assert client.get("/client/update", auth=("jump-0006", "wrong")).status_code == 401
    assert client.get("/client/update").status_code == 401
    assert client.get("/updates-of-clients/client-21.1.1.bin").status_code == 404, "nobody can ask for the file itself"
    check_in(client, 6, "21.1.1")


def test_many_are_listed_in_pages_each_once(client: httpx.Client) -> None:
    pages = [listed(client, per_page=100, current_page=number) for number in (1, 2, 3, 4)]
    assert [len(rows) for rows, _ in pages] == [100, 100, 30, 0]
    assert [row["id"] for rows, _ in pages for row in rows] == list(range(1, CLIENTS + 1))
    assert {headers["X-BT-Pagination-Total"] for _, headers in pages} == {str(CLIENTS)}
    assert {headers["X-BT-Pagination-Last-Page"] for _, headers in pages} == {"3"}
    office, headers = listed(client, jump_group_name="Office", per_page=100)
    assert {row["jump_group_name"] for row in office} == {"Office"}
    assert int(headers["X-BT-Pagination-Total"]) == len(office) == 77


def test_who_was_not_seen_for_long_is_lost_and_is_not_when_it_comes_back(box: LocalAppliance, client: httpx.Client) -> None:
    page = look(box, "login").follow("Jump", "Jump Clients")
    days = "Days without a connection after which a Jump Client is lost"
    page.fill("Save Changes", {days: "10000"})
    assert page.error == "The number of days must be between 0 and 9999; with 0 none is marked as lost."
    page.fill("Save Changes", {days: "7"})
    assert not any(row["is_lost"] for row in listed(client)[0])
    box.fault("clock", str(8 * 86400))
    try:
        check_in(client, 2, "21.1.1")
        rows = listed(client, per_page=5)[0]
        assert [(row["connected"], row["is_lost"]) for row in rows[:3]] == [(False, True), (True, False), (False, True)]
        assert rows[0]["last_disconnect_timestamp"] >= rows[0]["last_connect_timestamp"]
        assert rows[1]["last_disconnect_timestamp"] is None
        shown = Browser(box.url, "login").log_in(PASSWORD).follow("Jump", "Jump Clients").texts("Jump :: Jump Clients")
        assert [row["Status"] for row in shown][:3] == ["Lost", "Connected", "Lost"]
    finally:
        box.fault("clock", "off")
