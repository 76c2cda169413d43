"""Who has followed an update, and how that is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from examples_of_plans import make_loaded_upgrade

from kit.errors import FailedError
from kit.progress import Silent
from migrate.appliances.contract import Appliance
from migrate.cli.clients import render_following
from migrate.facts import JumpClient
from migrate.runbook import Node
from migrate.steps.clients import BY_HAND, confirm_removal, count_followed, list_clients, plan_poll
from migrate.steps.context import Outside, UpgradeContext
from migrate.steps.upgrade import Installed
from migrate.wiring.following import find_last_site_package, reckon

SINCE = 1_800_000_000.0


def client(number: int, *, behind: bool = False, lost: bool = False, seen: float | None = SINCE + 10) -> JumpClient:
    return JumpClient(number, f"pc {number}", connected=False, lost=lost, needs_update=behind, last_seen=seen)


CLIENTS = (
    client(1),
    client(2, behind=True),
    client(3, seen=SINCE - 1),  # needs no update, but has not been seen since: nobody knows
    client(4, seen=None),
    client(5, behind=True, lost=True),
)


def test_only_who_needs_no_update_and_was_seen_since_has_followed() -> None:
    found = count_followed(CLIENTS, SINCE)
    assert (found.expected, found.updated) == (4, 1)
    assert found.missing == (("pc 2", SINCE + 10), ("pc 3", SINCE - 1), ("pc 4", None))
    assert found.lost == ("pc 5",)


@pytest.mark.parametrize("clients", [0, 1, 999, 2000, 10_000, 100_000])
def test_looks_never_use_more_than_half_of_what_an_api_account_may_ask(clients: int) -> None:
    calls = max(1, -(-clients // 100))
    assert 3600 / plan_poll(clients) * calls <= 15_000 / 2
    assert plan_poll(clients) >= 5.0


def test_the_rate_and_what_is_left_are_told_beside_the_limit() -> None:
    found = reckon(CLIENTS, "21.2.1", Installed("Site 21.2.1", "21.2.1", SINCE, SINCE), SINCE + 120, 100)
    assert (found.per_minute, found.minutes_left) == (0.5, 6.0)
    text = render_following(found)
    first, *_ = text.splitlines()
    assert first == (
        "1 of 4 Jump Clients have taken 21.2.1; 0.5 a minute on average, at most 100 at a time; about 6 min to go at this rate."
    )
    assert "  missing  pc 4                                     last seen never" in text
    assert "  lost     pc 5" in text
    assert all(line in text for line in BY_HAND)


def test_when_all_have_followed_nothing_is_left() -> None:
    found = reckon((client(1),), "21.2.1", Installed("Site 21.2.1", "21.2.1", SINCE, SINCE), SINCE + 60, None)
    assert (found.per_minute, found.minutes_left) == (1.0, 0.0)
    first, *_ = render_following(found).splitlines()
    assert first == "1 of 1 Jump Clients have taken 21.2.1; 1.0 a minute on average, the box names no limit."


def test_without_an_installation_there_is_no_rate() -> None:
    found = reckon(CLIENTS, "21.2.1", None, SINCE, 8)
    assert (found.per_minute, found.minutes_left, found.since) == (None, None, None)


def test_what_only_people_can_do_is_named() -> None:
    text = " ".join(BY_HAND)
    assert all(word in text for word in ("Installers", "MSI", "Integration clients", "Buttons", "Jumpoints", "connection agents"))


class Box:
    """As much of an appliance as tells its clients; None: it does not."""

    def __init__(self, *clients: JumpClient) -> None:
        self.clients: tuple[JumpClient, ...] | None = clients

    def read_jump_clients(self) -> tuple[JumpClient, ...] | None:
        return self.clients

    def close(self) -> None: ...


def make_context(folder: Path, box: Box) -> UpgradeContext:
    plan = make_loaded_upgrade(("wait: updated", "wait: none")).plan
    return UpgradeContext(
        plan=plan,
        run="r",
        node=Node("list-clients", "", step="list-clients"),
        base=folder,
        folder=folder,
        results={},
        progress=Silent(),
        outside=cast("Outside", None),
        reveal=cast("Any", None),
        read_time=lambda: SINCE,
        stop_wanted=lambda: False,
        box=plan.box,
        who="",
        open_box=lambda: cast("Appliance", box),
    )


def test_what_has_to_be_removed_is_listed_by_kind_and_by_name(tmp_path: Path) -> None:
    done = list_clients(make_context(tmp_path, Box(client(1), client(2, seen=None))))
    assert done.sentence == "5 kinds of client software are to be removed; Jump Clients: 2."
    path = tmp_path / "clients-to-remove.md"
    assert path.stat().st_mode & 0o077 == 0
    text = path.read_text()
    assert "- [ ] pc 2 (last seen never)" in text
    assert all(word in text for word in ("Jumpoints", "connection agents", "Buttons", "MSI", "Integration clients"))


def test_before_packages_without_a_wait_the_box_is_asked_who_is_still_connected(tmp_path: Path) -> None:
    there = JumpClient(3, "pc 3", connected=True, lost=False, needs_update=False, last_seen=SINCE)
    with pytest.raises(FailedError) as caught:
        confirm_removal(make_context(tmp_path, Box(client(1), there)))
    assert caught.value.sentence == "1 Jump Clients are still connected: pc 3."
    assert confirm_removal(make_context(tmp_path, Box(client(1)))).sentence == "No Jump Client is connected; 1 are still listed."


def test_a_box_that_does_not_tell_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    box = Box()
    box.clients = None
    assert "could not be told" in confirm_removal(make_context(tmp_path, box)).evidence[0].seen
    assert "Jump Clients: the box does not tell them." in list_clients(make_context(tmp_path, box)).sentence


def test_of_a_pair_the_box_that_serves_counts_from_when_visitors_came_to_it() -> None:
    def installed(version: str, at: float) -> dict[str, Any]:
        return {"value": {"name": version, "version": version, "began": at, "box_began": at + 5}}

    results: dict[str, Any] = {"b-install-site-2": installed("2", 100.0), "swing-shared": {"value": {"at": 400.0, "seconds": 1.0}}}
    results["a-install-site-2"] = installed("2", 900.0)
    assert find_last_site_package(results, "b") == Installed("2", "2", 400.0, 405.0)
    assert find_last_site_package(results, "a") == Installed("2", "2", 900.0, 905.0)
    assert find_last_site_package(results, "") is None
