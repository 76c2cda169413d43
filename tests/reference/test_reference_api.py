"""The documented API in its documented forms, and the client side that is this appliance's own."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from browsing import Browser
from lxml import etree
from reference_boxes import PASSWORD, SEED, Maker, look

from images.local_appliance import LocalAppliance

pytestmark = [pytest.mark.process, pytest.mark.network]
DENIED = {"error": "access_denied", "message": "The resource owner or authorization server denied the request."}


@pytest.fixture(scope="module")
def box(shared_boxes: Maker) -> LocalAppliance:
    made = shared_boxes()
    made.seed(SEED)
    made.fault("api-limit", "100000")
    return made


def get_token(box: LocalAppliance) -> str:
    answer = httpx.post(
        f"{box.url}/oauth2/token",
        auth=(str(SEED["api_client_id"]), str(SEED["api_client_secret"])),
        data={"grant_type": "client_credentials"},
        verify=False,
    )
    assert answer.json() == {"access_token": answer.json()["access_token"], "token_type": "Bearer", "expires_in": 3600}
    token: str = answer.json()["access_token"]
    return token


@pytest.fixture
def client(box: LocalAppliance) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=box.url, verify=False, headers={"Authorization": f"Bearer {get_token(box)}"}, timeout=30) as made:
        yield made


def xml(answer: httpx.Response) -> Any:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/xml")
    root = etree.fromstring(answer.content)
    for one in root.iter():
        one.tag = etree.QName(one).localname
    return root


@pytest.mark.parametrize(
    ("auth", "data", "status"),
    [
        (("automation", "wrong"), {"grant_type": "client_credentials"}, 401),
        (("nobody", "wrong"), {"grant_type": "client_credentials"}, 401),
        ((str(SEED["api_client_id"]), str(SEED["api_client_secret"])), {"grant_type": "password"}, 400),
        (None, {"grant_type": "client_credentials"}, 401),
    ],
)
def test_a_token_needs_the_right_secret_and_grant(box: LocalAppliance, auth: Any, data: dict[str, str], status: int) -> None:
    answer = httpx.post(f"{box.url}/oauth2/token", auth=auth, data=data, verify=False)
    assert answer.status_code == status
    assert "access_token" not in answer.json()


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer nonsense", "Basic YTpi"])
def test_without_a_valid_token_the_answer_is_the_documented_one(box: LocalAppliance, header: str) -> None:
    answer = httpx.get(f"{box.url}/api/config/v1/jump-client", headers={"Authorization": header} if header else {}, verify=False)
    assert answer.status_code == 401
    assert answer.json() == DENIED


def test_the_thirty_first_token_ends_the_oldest(box: LocalAppliance) -> None:
    tokens = [get_token(box) for _ in range(31)]

    def status(token: str) -> int:
        return httpx.get(f"{box.url}/api/config/v1/user", headers={"Authorization": f"Bearer {token}"}, verify=False).status_code

    assert [status(tokens[0]), status(tokens[1]), status(tokens[30])] == [401, 200, 200]


def test_a_token_ends_after_an_hour(make_box: Maker) -> None:
    box = make_box()
    box.seed(SEED)
    headers = {"Authorization": f"Bearer {get_token(box)}"}
    for clock, status in ((3500, 200), (3700, 401)):
        box.fault("clock", str(clock))
        assert httpx.get(f"{box.url}/api/config/v1/user", headers=headers, verify=False).status_code == status


def test_more_than_twenty_requests_a_second_are_turned_down(make_box: Maker) -> None:
    box = make_box()
    box.seed(SEED)
    box.fault("api-limit", "3")  # fewer, so that a slow machine reaches it too
    headers = {"Authorization": f"Bearer {get_token(box)}"}
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(httpx.get, f"{box.url}/api/config/v1/user", headers=headers, verify=False, timeout=30) for _ in range(24)]
        answers = [one.result() for one in asked]
    turned = [one for one in answers if one.status_code == 429]
    good = [one for one in answers if one.status_code == 200]
    assert turned
    assert good
    assert {one.headers["X-RateLimit-Limit"] for one in answers} == {"15000"}
    assert all(0 <= int(one.headers["X-RateLimit-Remaining"]) < 15000 for one in good)
    time.sleep(1.1)
    assert httpx.get(f"{box.url}/api/config/v1/user", headers=headers, verify=False).status_code == 200


def test_lists_come_in_pages_with_the_documented_headers(client: httpx.Client) -> None:
    answer = client.get("/api/config/v1/jump-client", params={"per_page": 10, "current_page": 2})
    assert [row["client"] for row in answer.json()] == [f"jump-{at:04d}" for at in range(11, 21)]
    paging = {name: answer.headers[f"X-BT-Pagination-{name}"] for name in ("Current-Page", "Last-Page", "Per-Page", "Total")}
    assert paging == {"Current-Page": "2", "Last-Page": "3", "Per-Page": "10", "Total": "25"}
    links = answer.links
    assert set(links) == {"first", "last", "prev", "next"}
    assert len(client.get(links["next"]["url"]).json()) == 5
    assert client.get("/api/config/v1/jump-client").headers["X-BT-Pagination-Per-Page"] == "100"
    assert "X-RateLimit-Remaining" in answer.headers


def test_a_jump_client_shows_what_a_migration_looks_at(client: httpx.Client) -> None:
    first = client.get("/api/config/v1/jump-client").json()[0]
    assert {"needs_update", "is_lost", "last_connect_timestamp", "last_disconnect_timestamp", "unavailable_reason"} <= set(first)
    assert first["connected"] is True
    assert first["needs_update"] is False
    assert client.get(f"/api/config/v1/jump-client/{first['id']}").json() == first
    assert "secret" not in first


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/config/v1/jump-client?nonsense=1", 401),
        ("/api/config/v1/jump-client/1?per_page=10", 401),
        ("/api/config/v1/jump-client?per_page=4", 422),
        ("/api/config/v1/jump-client?per_page=101", 422),
        ("/api/config/v1/jump-client?current_page=0", 422),
        ("/api/config/v1/jump-client?per_page=ten", 422),
        ("/api/config/v1/jump-client/99999", 404),
        ("/api/config/v1/jump-client/'%20or%201=1", 404),
        ("/api/config/v1/nothing", 404),
    ],
)
def test_questions_that_make_no_sense_get_the_documented_codes(client: httpx.Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_other_verbs_than_reading_are_not_allowed(client: httpx.Client) -> None:
    assert client.delete("/api/config/v1/jump-client/1").status_code == 405
    assert client.head("/api/config/v1/jump-client").status_code == 200


@pytest.mark.parametrize("name", ["user", "api-account", "vault/account"])
def test_the_other_collections_answer_too_and_hold_no_secret(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/api/config/v1/{name}")
    assert answer.status_code == 200
    assert int(answer.headers["X-BT-Pagination-Total"]) == len(answer.json()) > 0
    assert not {"password", "secret", "sealed"} & set(answer.json()[0])


def test_the_description_names_the_collections(client: httpx.Client) -> None:
    assert "/jump-client:" in client.get("/api/config/v1/openapi.yaml").text


def test_filters_narrow_a_list(client: httpx.Client) -> None:
    found = client.get("/api/config/v1/jump-client", params={"jump_group_name": "Fábrica"}).json()
    assert found
    assert {row["jump_group_name"] for row in found} == {"Fábrica"}


# ---- command API


@pytest.mark.parametrize("path", ["/api/command", "/api/command.ns"])
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_health_by_command_in_both_verbs_and_addresses(box: LocalAppliance, client: httpx.Client, path: str, verb: str) -> None:
    asked = {"action": "check_health"}
    root = xml(client.get(path, params=asked) if verb == "GET" else client.post(path, data=asked))
    facts = look(box, "appliance").facts()
    assert root.tag == "health_check"
    assert root.find("appliance").get("id") == facts["Appliance GUID"]
    assert root.findtext("appliance") == facts["Hostname"]
    assert root.findtext("version") == "21.1.1 (60111)"
    assert (root.findtext("success"), root.findtext("failover_role"), root.find("error_message")) == ("1", "none", None)


def test_api_info_tells_version_and_permissions(client: httpx.Client) -> None:
    root = xml(client.get("/api/command", params={"action": "get_api_info"}))
    assert root.findtext("api_version") == "1.21.0"
    assert root.findtext("company_name") == SEED["company"]
    assert {one.get("id"): one.text for one in root.iter("permission")}["perm_command"] == "full_access"


def test_appliances_lists_this_one(client: httpx.Client) -> None:
    root = xml(client.get("/api/command", params={"action": "get_appliances"}))
    one = root.find("appliance")
    assert one.findtext("public_hostname") == "support.example.test"
    assert (one.findtext("cluster_role"), one.findtext("failover_role")) == ("single", "none")


@pytest.mark.parametrize(
    "asked",
    [{"action": "set_failover_role", "role": "backup"}, {"action": "set_failover_role"}, {"action": "<b>&\x01"}, {}],
)
def test_what_cannot_be_done_is_an_error_element_with_status_200(client: httpx.Client, asked: dict[str, str]) -> None:
    assert xml(client.get("/api/command", params=asked)).tag == "error"


def test_multipart_is_not_taken(client: httpx.Client) -> None:
    assert "Multipart" in xml(client.post("/api/command", data={"action": "check_health"}, files={"x": b"1"})).text


def test_the_schema_is_there(client: httpx.Client) -> None:
    assert etree.fromstring(client.get("/api/command.xsd").content).tag.endswith("schema")


def test_an_account_without_permission_is_told_so(box: LocalAppliance) -> None:
    browser = look(box, "login").follow("Management", "API Configuration")
    browser.fill("Add API Account", {"Name": "reader", "Command API": "read_only"})
    facts = browser.facts()
    auth = (facts["OAuth Client ID"], facts["OAuth Client Secret"])
    token = httpx.post(f"{box.url}/oauth2/token", auth=auth, data={"grant_type": "client_credentials"}, verify=False).json()
    with httpx.Client(base_url=box.url, verify=False, headers={"Authorization": f"Bearer {token['access_token']}"}) as reader:
        assert reader.get("/api/command", params={"action": "check_health"}).status_code == 200
        assert reader.get("/api/command", params={"action": "set_failover_role", "role": "backup"}).status_code == 403
        backup = reader.get("/api/backup")
        assert (backup.status_code, backup.text.strip()) == (404, "Document Not Found")
        refused = reader.get("/api/config/v1/user")
        assert refused.status_code == 403
        assert "/login" in refused.json()["message"]


# ---- backup, health, probes


def test_a_backup_by_the_api_is_one_by_the_page(box: LocalAppliance, client: httpx.Client) -> None:
    plain = client.get("/api/backup")
    sealed = client.post("/api/backup", json={"password": PASSWORD})
    assert ".nsb" in plain.headers["content-disposition"]
    assert b"user001" not in sealed.content
    browser = look(box, "login").follow("Management", "Software Management")
    browser.fill("Upload Backup", {"Backup Password": "wrong"}, files={"Configuration Backup File": ("x.nsb", sealed.content)})
    assert "password is wrong" in browser.error


@pytest.mark.parametrize("body", [[], {"password": 3}])
def test_a_backup_with_a_senseless_body_is_refused(client: httpx.Client, body: Any) -> None:
    assert client.post("/api/backup", json=body).status_code == 422


def test_health_says_no_when_something_is_wrong(box: LocalAppliance) -> None:
    assert httpx.get(f"{box.url}/check_health", verify=False).status_code == 200
    for fault in ("unhealthy", "disk-full"):
        box.fault(fault)
        answer = httpx.get(f"{box.url}/check_health", verify=False)
        assert answer.status_code == 500
        assert "not healthy" in answer.text
        box.fault(fault, "off")


def test_health_notices_a_damaged_database(make_box: Maker) -> None:
    box = make_box()
    box.seed({"sessions": 3000})
    box.stop()
    path = box.root / "data" / "site.db"
    with sqlite3.connect(path) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    content = bytearray(path.read_bytes())
    content[4096 * 60 : 4096 * 100] = b"\xff" * (4096 * 40)  # far behind the structure of the database
    path.write_bytes(content)
    box.start()
    assert httpx.get(f"{box.url}/check_health", verify=False).status_code == 500


def test_mechanisms_tell_company_and_product(box: LocalAppliance) -> None:
    facts = httpx.get(f"{box.url}/get_mech_list", params={"version": 3}, verify=False).json()
    assert set(facts) == {"mechs", "default_mech", "cache", "company", "product"}
    assert facts["company"] == SEED["company"]
    assert facts["product"] != "bpam"


# ---- reporting


def test_the_listing_holds_every_session_of_the_asked_time(client: httpx.Client) -> None:
    asked = {"generate_report": "SupportSessionListing", "start_date": "2000-01-01", "duration": "0"}
    root = xml(client.get("/api/reporting", params=asked))
    assert len(root.findall("session")) >= 120
    first = root.find("session")
    asked = {"generate_report": "SupportSession", "lsid": first.get("lsid")}
    assert [one.get("lsid") for one in xml(client.get("/api/reporting", params=asked)).findall("session")] == [first.get("lsid")]
    ended = int(first.find("end_time").get("timestamp"))
    asked = {"generate_report": "SupportSessionListing", "start_time": str(ended), "duration": "1"}
    assert len(xml(client.post("/api/reporting", data=asked)).findall("session")) == 1


def test_a_recording_comes_as_bytes_and_a_missing_one_is_not_found(client: httpx.Client) -> None:
    asked = {"generate_report": "SupportSessionListing", "start_date": "2000-01-01", "duration": "0"}
    kept = list(xml(client.get("/api/reporting", params=asked)).iter("session_recording_url"))
    assert len(kept) == 7
    assert client.get(kept[0].text).content.startswith(b"FLV\x01")
    asked = {"generate_report": "SupportSessionRecording", "lsid": "0" * 32}
    assert client.get("/api/reporting", params=asked).status_code == 404


@pytest.mark.parametrize("asked", [{}, {"generate_report": "Nothing"}, {"generate_report": "SupportSessionListing", "start_date": "soon"}])
def test_a_report_that_makes_no_sense_is_an_error_element(client: httpx.Client, asked: dict[str, str]) -> None:
    assert xml(client.get("/api/reporting", params=asked)).tag == "error"


# ---- the client side


def session(**more: Any) -> dict[str, Any]:
    return {
        "client": "jump-0002",
        "secret": SEED["jump_client_secret"],
        "lsid": "ab" * 16,
        "customer": "<b>Zoë</b> '\"; drop table session",
        "started": 1_700_000_000,
        "ended": 1_700_000_100,
    } | more


def test_a_session_is_recorded_once_and_can_be_read_back(box: LocalAppliance, client: httpx.Client) -> None:
    for _ in range(2):
        answer = httpx.post(f"{box.url}/client/session", json=session(), verify=False)
        assert (answer.status_code, answer.json()) == (201, {"lsid": "ab" * 16})
    found = xml(client.get("/api/reporting", params={"generate_report": "SupportSession", "lsid": "ab" * 16}))
    assert found.find("session").findtext("primary_customer") == session()["customer"]
    other = httpx.post(f"{box.url}/client/session", json=session(customer="someone else"), verify=False)
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (session(secret="wrong"), 401),
        (session(client="nobody"), 401),
        (session(lsid="short"), 422),
        (session(started="now"), 422),
        ([], 400),
        ("text", 400),
    ],
)
def test_a_session_that_will_not_do_is_refused(box: LocalAppliance, body: Any, status: int) -> None:
    answer = httpx.post(f"{box.url}/client/session", content=json.dumps(body), headers={"Content-Type": "application/json"}, verify=False)
    assert answer.status_code == status


def test_a_client_that_checks_in_is_connected_and_one_that_stays_away_is_not(make_box: Maker) -> None:
    box = make_box()
    box.seed(SEED)
    box.fault("clock", "1000")
    body = {"client": "jump-0002", "secret": SEED["jump_client_secret"], "version": "21.1.1"}
    assert httpx.post(f"{box.url}/client/checkin", json=body, verify=False).json() == {"update": None}
    with httpx.Client(base_url=box.url, verify=False, headers={"Authorization": f"Bearer {get_token(box)}"}) as client:
        rows = client.get("/api/config/v1/jump-client").json()
    assert [row["client"] for row in rows if row["connected"]] == ["jump-0002"]
    assert rows[0]["unavailable_reason"] == "disconnected"
    shown = Browser(box.url, "login").log_in(PASSWORD).follow("Jump", "Jump Clients").texts("Jump :: Jump Clients")
    assert [row["Status"] for row in shown][:3] == ["Disconnected", "Connected", "Disconnected"]


def test_a_write_on_a_full_disk_is_not_confirmed(make_box: Maker) -> None:
    box = make_box()
    box.seed(SEED)
    box.fault("disk-full")
    statuses = set()
    for at in range(400):
        body = session(lsid=f"{at:032x}", customer="x" * 2000)
        statuses.add(httpx.post(f"{box.url}/client/session", json=body, verify=False).status_code)
        if 507 in statuses:
            break
    assert 507 in statuses
    assert statuses <= {201, 507}
