from __future__ import annotations

import ast
import inspect
from dataclasses import replace

import pytest
from examples_of_plans import CONTENT, NEW, OLD, make_plan
from examples_of_plans import PLAN as PLAN_TEXT
from hypothesis import given
from hypothesis import strategies as st

from kit.findings import Finding, Severity
from migrate import checks
from migrate.checks import BlockedError, Estimate, check_new, check_old, check_room, find_files_left_out, plan_room, verify_no_blockers
from migrate.facts import BoxAddress, ClockReading, FileItem, Identity, SiteContent, Version

PLAN = make_plan()
CERTIFICATE = OLD.certificates[0]
BIG = FileItem("big.iso", 200_000)
LOST = replace(CONTENT.jump_clients[0], lost=True) if CONTENT.jump_clients else None
UNTOLD = SiteContent(None, None, None, None, None)

OLD_CASES = [
    ("unhealthy", Severity.BLOCKER, replace(OLD, healthy=False, health_note="disk failing")),
    ("identity-unread", Severity.BLOCKER, replace(OLD, identity=Identity("", "", "h", "ab" * 32))),
    ("clock-off", Severity.BLOCKER, replace(OLD, clock=ClockReading(-31.0, 0.5))),
    ("clock-unsure", Severity.UNVERIFIED, replace(OLD, clock=ClockReading(29.0, 5.0))),
    ("clock-unsure", Severity.UNVERIFIED, replace(OLD, clock=ClockReading(300.0, float("inf")))),
    ("wrong-box", Severity.BLOCKER, replace(OLD, identity=replace(OLD.identity, guid="9999"))),
    ("wrong-box", Severity.BLOCKER, replace(OLD, identity=replace(OLD.identity, serial=""))),
    ("version-changed", Severity.BLOCKER, replace(OLD, site=Version("22.11", "1"))),
    ("version-changed", Severity.BLOCKER, replace(OLD, base=Version("", ""))),
    ("no-site", Severity.BLOCKER, replace(OLD, site=Version("", ""))),
    ("no-service-address", Severity.BLOCKER, replace(OLD, addresses=OLD.addresses[:1])),
    ("no-service-address", Severity.BLOCKER, replace(OLD, addresses=())),
    ("service-disabled", Severity.BLOCKER, replace(OLD, addresses=(BoxAddress("10.0.2.20", 24, enabled=False),))),
    ("in-a-pair", Severity.BLOCKER, replace(OLD, failover_role="primary")),
    ("in-a-pair", Severity.BLOCKER, replace(OLD, failover_role="unknown")),
    ("no-certificate", Severity.BLOCKER, replace(OLD, certificates=())),
    ("no-certificate", Severity.BLOCKER, replace(OLD, certificates=(replace(CERTIFICATE, has_key=False),))),
    ("no-certificate", Severity.BLOCKER, replace(OLD, certificates=(replace(CERTIFICATE, addresses=("10.0.2.15",)),))),
    ("certificate-warning", Severity.BLOCKER, replace(OLD, certificates=(replace(CERTIFICATE, warnings=("chain is incomplete",)),))),
    ("content-unread", Severity.UNVERIFIED, replace(OLD, content=UNTOLD)),
    ("recordings-not-in-backup", Severity.WARNING, replace(OLD, content=replace(CONTENT, recordings=("r1",)))),
    ("files-not-in-backup", Severity.NOTE, replace(OLD, content=replace(CONTENT, files=(BIG,)))),
    ("clients-lost", Severity.NOTE, replace(OLD, content=replace(CONTENT, jump_clients=(LOST,)))),
]
NEW_CASES = [
    ("new-unhealthy", Severity.NOTE, replace(NEW, healthy=False)),
    ("identity-unread", Severity.BLOCKER, replace(NEW, identity=Identity("", "", "h", "cd" * 32))),
    ("clock-off", Severity.BLOCKER, replace(NEW, clock=ClockReading(3600.0, 1.0))),
    ("in-a-pair", Severity.BLOCKER, replace(NEW, failover_role="backup")),
    ("same-box", Severity.BLOCKER, replace(NEW, identity=replace(NEW.identity, guid=OLD.identity.guid.upper()))),
    ("same-box", Severity.BLOCKER, replace(NEW, identity=replace(NEW.identity, serial=OLD.identity.serial))),
    ("new-is-newer", Severity.BLOCKER, replace(NEW, site=Version("22.11", "1"))),
    ("new-is-newer", Severity.BLOCKER, replace(NEW, base=Version("5.10.0", "1"))),
]


def codes(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.code for finding in findings}


def test_two_good_boxes_give_no_finding() -> None:
    assert check_old(PLAN, OLD) == ()
    assert check_new(PLAN, OLD, NEW) == ()
    assert list(check_room(Estimate(free=10, wanted=10))) == []


@pytest.mark.parametrize(("code", "severity", "facts"), OLD_CASES)
def test_the_old_box(code: str, severity: Severity, facts) -> None:
    found = [finding for finding in check_old(PLAN, facts) if finding.code == code]
    assert found
    assert {finding.severity for finding in found} == {severity}
    assert all(finding.sentence.endswith(".") or finding.sentence[-1].isalpha() for finding in found)


@pytest.mark.parametrize(("code", "severity", "facts"), NEW_CASES)
def test_the_new_box(code: str, severity: Severity, facts) -> None:
    found = [finding for finding in check_new(PLAN, OLD, facts) if finding.code == code]
    assert found
    assert {finding.severity for finding in found} == {severity}


def test_room_on_this_machine() -> None:
    (finding,) = check_room(Estimate(free=9, wanted=10))
    assert (finding.code, finding.severity) == ("no-room", Severity.BLOCKER)


def test_every_code_of_the_checks_is_produced_by_a_case_here() -> None:
    written = {
        call.args[0].value
        for call in ast.walk(ast.parse(inspect.getsource(checks)))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Finding"
    }
    assert written == {case[0] for case in OLD_CASES + NEW_CASES} | {"no-room", "licence-not-accepted", "rule-not-saved"}


def test_a_licence_that_is_not_accepted_is_told_before_anything_starts() -> None:
    plan = make_plan(("accept_eula: true", "accept_eula: false"))
    assert {"licence-not-accepted"} <= codes(check_old(plan, OLD)) | codes(check_new(plan, OLD, NEW))


def test_a_gateway_s_own_file_is_a_thing_to_remember() -> None:
    nat = f"method: nat\n  nat:\n    gateway: 127.0.0.1\n    host_key: SHA256:{'a' * 43}\n    password: env:X\n"
    plan = make_plan((PLAN_TEXT[PLAN_TEXT.index("dns:\n    server") :], nat))
    (finding,) = (one for one in check_old(plan, OLD) if one.code == "rule-not-saved")
    assert finding.severity is Severity.WARNING
    assert "127.0.0.12" in finding.hint
    assert "rule-not-saved" not in codes(check_old(PLAN, OLD))


def test_all_findings_come_at_once() -> None:
    bad = replace(OLD, healthy=False, failover_role="backup", certificates=(), addresses=(), content=UNTOLD)
    assert codes(check_old(PLAN, bad)) == {"unhealthy", "in-a-pair", "no-certificate", "no-service-address", "content-unread"}
    assert sum(finding.code == "content-unread" for finding in check_old(PLAN, bad)) == 5


def test_every_warning_of_the_certificate_is_told() -> None:
    bad = replace(OLD, certificates=(replace(CERTIFICATE, warnings=("expired", "no chain")),))
    assert sum(finding.code == "certificate-warning" for finding in check_old(PLAN, bad)) == 2


def test_what_the_plan_does_not_expect_is_not_compared() -> None:
    plan = make_plan(("  guid: 0000-1111\n  serial: 00123456\n  expect:\n    site: 22.10\n    base: 5.3.0\n", ""))
    other = replace(OLD, identity=replace(OLD.identity, guid="9", serial="8"), site=Version("1.0", "1"))
    assert check_old(plan, other) == ()


def test_the_tolerance_of_clocks_is_the_plans() -> None:
    late = replace(OLD, clock=ClockReading(50.0, 0.5))
    assert codes(check_old(PLAN, late)) == {"clock-off"}
    assert check_old(make_plan(more="verify: {clock_tolerance: 1m}\n"), late) == ()


def test_recordings_that_are_not_kept_are_told_so() -> None:
    facts = replace(OLD, content=replace(CONTENT, recordings=("r1",)))
    told = check_old(make_plan(("backup:\n", "backup:\n  archive_recordings: false\n")), facts)[0].sentence
    assert "NOT kept" in told
    assert "NOT" not in check_old(PLAN, facts)[0].sentence


FINDINGS = st.lists(st.builds(Finding, st.text(min_size=1), st.sampled_from(Severity), st.text(), st.text(), st.text()))


@given(FINDINGS)
def test_blockers_always_raise_and_nothing_else_does(findings: list[Finding]) -> None:
    blockers = [finding for finding in findings if finding.severity is Severity.BLOCKER]
    if not blockers:
        verify_no_blockers(findings)
        return
    with pytest.raises(BlockedError) as caught:
        verify_no_blockers(findings)
    assert caught.value.sentence.startswith(blockers[0].sentence)
    assert caught.value.facts["codes"] == ", ".join(finding.code for finding in blockers)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 1e5))
def test_a_clock_is_fine_only_when_it_is_surely_within_the_tolerance(offset: float, uncertainty: float, tolerance: float) -> None:
    plan = make_plan(more=f"verify: {{clock_tolerance: '{tolerance:.6f}'}}\n")
    found = check_old(plan, replace(OLD, clock=ClockReading(offset, uncertainty)))
    assert bool(found) == (abs(offset) + uncertainty > plan.verify.clock_tolerance)


@given(st.lists(st.builds(FileItem, st.text(max_size=5), st.integers(0, 400_000)), max_size=120))
def test_what_a_backup_leaves_out_is_what_is_large_and_what_is_beyond_fifty(files: list[FileItem]) -> None:
    left = find_files_left_out(files)
    kept = len(files) - len(left)
    assert kept <= 50
    assert kept == min(50, sum(item.size < 200_000 for item in files))
    assert all(item in left for item in files if item.size >= 200_000)


@pytest.mark.parametrize(
    ("newer", "older"), [("22.10", "22.9"), ("5.10.0", "5.9.9"), ("22.1.4", "22.1"), ("1", ""), ("22.1", "22.x"), ("10", "9.²")]
)
def test_versions_are_compared_as_numbers(newer: str, older: str) -> None:
    assert checks.parse_version(newer) > checks.parse_version(older)


def test_more_content_needs_more_room() -> None:
    assert plan_room(replace(CONTENT, files=(FileItem("f", 10**9),))) > 10**9 + plan_room(CONTENT)
    assert plan_room(UNTOLD) > 0
