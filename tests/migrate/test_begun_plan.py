"""What ``boxshift init`` writes: refused until a person has filled it in, a plan afterwards."""

from __future__ import annotations

import pytest

from migrate.plan_file import PlanError, parse_any_plan, parse_plan
from migrate.plan_values import ASK
from migrate.upgrade_plan import UpgradePlan
from migrate.wiring.template import Start, render_plan, render_upgrade_plan

PIN = "3f" * 32


def begun(**known: str) -> str:
    values = {"old": "192.0.2.10", "old_pin": PIN, "new": "192.0.2.11", "new_pin": PIN, "image": "", "dns_server": "192.0.2.53"} | known
    return render_plan(Start(site="support.example.com", port=443, old_port=443, new_port=443, **values))


def begun_upgrade() -> str:
    return render_upgrade_plan(Start("support.example.com", 443, "192.0.2.10", 443, PIN, "", 443, "", "", ""))


def filled(text: str) -> str:
    """As a person would: addresses where addresses belong, names where names do."""
    for number, line in enumerate(lines := text.splitlines()):
        value = f"192.0.2.{100 + number}" if "address" in line or "server" in line else "boxshift"
        lines[number] = line.replace(f'"{ASK}"', ASK).replace(ASK, value)
    return "\n".join(lines)


@pytest.mark.parametrize("image", ["", "vendor-22"])
def test_every_place_that_only_a_person_can_fill_is_named_at_its_line(image: str) -> None:
    text = begun(image=image)
    with pytest.raises(PlanError) as refused:
        parse_plan(text.encode(), "plan.yaml")
    wanted = [number for number, line in enumerate(text.splitlines(), 1) if ASK in line]
    assert [int(fault.split(":")[0].removeprefix("line ")) for fault in refused.value.faults] == wanted
    assert all(f"still says {ASK}" in fault for fault in refused.value.faults)


@pytest.mark.parametrize("image", ["", "vendor-22"])
def test_filled_in_it_is_a_plan(image: str) -> None:
    assert parse_plan(filled(begun(image=image)).encode(), "plan.yaml").new.provisioned == bool(image)


def test_a_key_that_could_not_be_read_is_asked_for() -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan(filled(begun()).replace(f'pin: "{PIN}"', f"pin: {ASK}", 1).encode(), "plan.yaml")
    assert refused.value.faults == (next(fault for fault in refused.value.faults if "old.pin: still says" in fault),)


def test_the_plan_of_an_upgrade_asks_for_what_only_a_person_knows() -> None:
    with pytest.raises(PlanError) as refused:
        parse_any_plan(begun_upgrade().encode(), "plan.yaml")
    wanted = [number for number, line in enumerate(begun_upgrade().splitlines(), 1) if ASK in line]
    assert [int(fault.split(":")[0].removeprefix("line ")) for fault in refused.value.faults] == wanted


def test_filled_in_it_is_the_plan_of_an_upgrade() -> None:
    assert isinstance(parse_any_plan(filled(begun_upgrade()).encode(), "plan.yaml"), UpgradePlan)
