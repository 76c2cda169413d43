from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from certs.cli import LEGACY
from kit.errors import BoxshiftError, ChangedError, FailedError, RefusedError, UsageError, WaitingError, walk_tree
from migrate.cli.say import EXIT_BUG, EXIT_INTERRUPTED, exit_code
from migrate.pair_plan import PairPlan, PairUpgradePlan
from migrate.plan_file import parse_any_plan, parse_plan
from migrate.upgrade_plan import UpgradePlan

ROOT = Path(__file__).resolve().parents[2]
PLAN_PAGE = (ROOT / "docs/reference/plan.md").read_text()
EXIT_PAGE = (ROOT / "docs/reference/exit-codes.md").read_text()


@pytest.mark.parametrize("page", ["plan.md", "upgrade-plan.md", "pair-plan.md", "pair-upgrade-plan.md"])
def test_the_pages_about_plans_are_what_the_models_say(page: str) -> None:
    """Where this fails: scripts/plan-reference."""
    assert runpy.run_path(str(ROOT / "scripts/plan_reference.py"))["render_reference"](page) == (ROOT / "docs/reference" / page).read_text()


def test_the_whole_plan_of_a_pairs_upgrade_on_its_page_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/reference/pair-upgrade-plan.md").read_text(), re.DOTALL)
    assert isinstance(parse_any_plan(example.encode(), "the page"), PairUpgradePlan)


def test_the_whole_plan_of_a_pair_on_its_page_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/reference/pair-plan.md").read_text(), re.DOTALL)
    plan = parse_any_plan(example.encode(), "the page")
    assert isinstance(plan, PairPlan)
    assert (plan.b.place.host, plan.b.place.port) == ("192.0.2.11", 443)


def test_the_whole_plan_of_an_upgrade_on_its_page_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/reference/upgrade-plan.md").read_text(), re.DOTALL)
    plan = parse_any_plan(example.encode(), "the page")
    assert isinstance(plan, UpgradePlan)
    assert plan.window is not None
    assert plan.window.rule().days == {5, 6}


def test_the_whole_plan_on_its_page_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PLAN_PAGE, re.DOTALL)
    plan = parse_plan(example.encode(), "the page")
    assert plan.retire.hold == 7 * 86400
    assert plan.new.provisioned


def test_the_page_about_exit_codes_names_those_that_are_used() -> None:
    told = {int(number) for number in re.findall(r"^\| (\d+) \|", EXIT_PAGE, re.MULTILINE)}
    used = {exit_code(kind("x")) for kind in (UsageError, RefusedError, FailedError, ChangedError, WaitingError, BoxshiftError)}
    of_certs = {1, LEGACY}  # warnings, and a cipher that is missing
    assert told == used | of_certs | {0, EXIT_BUG, EXIT_INTERRUPTED}


def test_the_page_about_exit_codes_gives_each_kind_its_code() -> None:
    kinds = {kind.code: kind for kind in walk_tree()}
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|(.*?)\|$", EXIT_PAGE, re.MULTILINE)
    assert len(rows) == 5
    for kind, number, narrower in rows:
        for code in (kind, *re.findall(r"`([a-z-]+)`", narrower)):
            if code in kinds:  # the leaves of rooms are there once their modules are loaded
                assert exit_code(kinds[code]("x")) == int(number)
