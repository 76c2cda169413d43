"""C2SP/x509-limbo: verdicts against the expectation, and the cause of every refusal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import limbo_harness as limbo
import pytest

SUBSET = Path(__file__).parent.parent / "data" / "x509-limbo-subset.json"
# The whole suite, or any other file in its form, where somebody has one: it must do as well there.
ELSEWHERE = os.environ.get("BOXSHIFT_LIMBO")


@pytest.fixture(scope="module", params=[SUBSET, *([Path(ELSEWHERE)] if ELSEWHERE else [])], ids=lambda path: path.name)
def found(request) -> limbo.Score:
    return limbo.score([limbo.run_case(case) for case in limbo.read_cases(request.param)])


def test_no_verdict_is_behind_the_plain_library(found):
    assert [each.name for each in found.behind] == []


def test_the_verdict_is_right_in_at_least_as_many_cases_as_the_librarys(found, capsys):
    with capsys.disabled():
        sys.stdout.write(f"\n{limbo.render(found)}\n")
    assert found.right >= found.library_right + (found.cases - found.library_asked) * 0.9


def test_nine_of_ten_refusals_name_the_real_cause(found):
    assert found.named >= 0.9 * found.failures


def test_a_general_finding_never_counts_as_a_cause():
    for _, codes in limbo.CAUSES:
        assert not codes & limbo.GENERAL


def test_every_case_of_the_subset_has_a_cause_to_be_named():
    for case in limbo.read_cases(SUBSET):
        if case["expected_result"] == "FAILURE":
            outcome = limbo.Outcome(case["id"], expected=False, ours=False, library=None, findings=())
            assert outcome.wanted, case["id"]


def test_changing_one_byte_of_a_signature_is_always_noticed():
    """The check can fail: what was right before is refused after."""
    from certs.pem import decode_base64
    from certs.write import pem

    changed = 0
    for case in limbo.read_cases(SUBSET):
        if case["expected_result"] != "SUCCESS" or case["validation_kind"] != "SERVER":
            continue
        body = "".join(line for line in case["peer_certificate"].splitlines() if not line.startswith("-----"))
        der = bytearray(decode_base64(body.encode()))
        der[-1] ^= 1
        assert not limbo.run_case({**case, "peer_certificate": pem("CERTIFICATE", bytes(der)).decode()}).ours, case["id"]
        changed += 1
    assert changed > 20
