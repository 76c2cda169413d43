"""How a plan says by which page a provisioned machine is found ready, and what is made of it."""

from __future__ import annotations

import pytest
from examples_of_plans import PLAN, make_plan

from images.domain import Forward
from images.ready_page import ReadyPage, Speech
from migrate.plan_file import PlanError, parse_plan
from migrate.wiring.machines import find_page, plan_forwards


def ready(words: str) -> tuple[str, str]:
    return "    image: reference\n", f"    image: reference\n    ready: {{{words}}}\n"


def test_without_a_page_the_familys_health_page_decides() -> None:
    plan = make_plan()
    assert plan.new.machine.ready is None
    assert find_page(plan.new.machine) is None
    assert [one.guest_port for one in plan_forwards(plan, None)] == [443, 443]


def test_a_page_with_status_and_text_is_asked_as_it_is_written() -> None:
    plan = make_plan(ready("page: https/login, status: 200, text: Site Administration"))
    page = find_page(plan.new.machine)
    assert page == ReadyPage(Speech.HTTPS, 443, "/login", 200, "Site Administration")
    assert len(plan_forwards(plan, page)) == 2


@pytest.mark.parametrize(
    ("word", "host_port", "guest_port"), [("https:5480/", 5480, 5480), ("http/up", 10080, 80), ("tls:8443", 18443, 8443)]
)
def test_a_page_on_another_port_gets_a_forward(word: str, host_port: int, guest_port: int) -> None:
    plan = make_plan(ready(f"page: '{word}'"))
    assert plan_forwards(plan, find_page(plan.new.machine))[2:] == (Forward("127.0.1.12", host_port, "10.0.2.15", guest_port),)


@pytest.mark.parametrize(
    "words",
    [
        "page: 'tcp:22'",
        "page: ssh/x",
        "page: ssh, text: OpenSSH",
        "page: tls/login",
        "page: tls, status: 200",
        "page: https, status: 99",
        "page: 'https:0'",
        "status: 200",
    ],
)
def test_what_is_no_page_is_refused_at_its_line(words: str) -> None:
    text = PLAN.replace(*ready(words))
    with pytest.raises(PlanError) as caught:
        parse_plan(text.encode(), "plan.yaml")
    assert any("ready" in fault for fault in caught.value.faults)
