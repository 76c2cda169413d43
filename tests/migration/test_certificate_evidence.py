"""What a run keeps of its certificate steps: the findings before, the transfer, and what every address of the new box serves after."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from theatre import Theatre

from kit.errors import ChangedError, FailedError, UnreachableError
from migrate.facts import BoxAddress
from migrate.steps import build
from migrate.steps.context import ServedProof
from migrate.steps.transfer import compare_chains
from migrate.steps.verify import find_other_addresses, look_beside

SCENE = (pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600))


@pytest.fixture(scope="module")
def verified(theatre: Theatre) -> Theatre:
    theatre.at("verified")
    return theatre


def evidence_of(theatre: Theatre, node: str) -> dict[str, dict[str, str]]:
    value: Any = theatre.rig.status().node(node).value
    return {row["what"]: row for row in value["evidence"]}


def with_marks(test: Any) -> Any:
    for mark in SCENE:
        test = mark(test)
    return test


@with_marks
def test_the_steps_keep_findings_transfer_and_comparison(verified: Theatre) -> None:
    before = evidence_of(verified, "diagnose-certificate")
    assert "key" in before["certificates and key"]["seen"]
    assert [what for what in before if what.startswith(("note ", "warning ", "findings"))], before
    moved = evidence_of(verified, "transfer-certificate")
    assert moved["certificates and key"]["seen"] == before["certificates and key"]["seen"]
    assert "no warnings" in moved["row of the new box"]["seen"]
    after = evidence_of(verified, "served-chain")
    assert after["served before"]["seen"] == before["served today"]["seen"]
    assert after["served now"]["seen"] == f"the same certificates, byte by byte: {before['served today']['seen']}"


@with_marks
def test_every_address_of_the_new_box_is_looked_at(verified: Theatre) -> None:
    rows = evidence_of(verified, "served-chain")
    new = verified.read_plan().new
    assert rows["served now"]["source"].startswith(str(new.service.visible))
    assert rows["administration address"]["source"] == f"{new.address}:{new.port}"
    assert rows["administration address"]["seen"].startswith("another certificate: ")


@with_marks
def test_it_is_all_in_the_report(verified: Theatre) -> None:
    answer = verified.ask_plan("report", "--json")
    page, data = Path(answer.json["report"]).read_text(), json.loads(Path(answer.json["json"]).read_text())
    shown = {node["name"]: node["evidence"] for phase in data["phases"] for node in phase["nodes"]}
    for node in ("diagnose-certificate", "transfer-certificate", "assign-certificate", "served-chain"):
        rows = list(evidence_of(verified, node).values())
        assert shown[node] == rows
        assert all(row["what"] in page for row in rows)
    assert "the same certificates, byte by byte" in page


@pytest.mark.parametrize(
    ("chain", "key", "words"),
    [
        (("a", "b"), "k", "the same certificates, byte by byte"),
        (("a", "c"), "k", "the same leaf, another chain"),
        (("a", "b", "c"), "k", "the same leaf, another chain"),
        (("d", "b"), "k", "another certificate for the same key"),
        (("d",), "x", "another certificate"),
    ],
)
def test_chains_are_compared_certificate_by_certificate(chain: tuple[str, ...], key: str, words: str) -> None:
    before = ServedProof("127.0.0.11", 8443, ("a", "b"), "k", verified=True, said="verified")
    assert compare_chains(ServedProof("127.0.0.12", 8443, chain, key, verified=True, said="verified"), before) == words


# ---- the steps' own decisions, without boxes


class Eyes:
    """An outside that shows what a test says, address by address; each look may show another thing, the last stays."""

    def __init__(self, **shown: list[str]) -> None:
        self.shown = {name.replace("_", "."): keys for name, keys in shown.items()}

    def read_served(self, address: str, port: int) -> ServedProof:
        keys = self.shown.get("at." + address, [])
        if not keys:
            raise UnreachableError(f"Nothing answers at {address} port {port}.")
        key = keys.pop(0) if len(keys) > 1 else keys[0]
        return ServedProof(address, port, (key,), key, verified=True, said="verified")


def context(outside: Eyes, addresses: tuple[BoxAddress, ...], admin: str = "127.0.1.12") -> Any:
    new = SimpleNamespace(address=admin, port=8443, service=SimpleNamespace(address="127.0.0.12", visible="127.0.0.12"))
    plan = SimpleNamespace(new=new, site=SimpleNamespace(port=8443, name="support.example.test"))
    return SimpleNamespace(plan=plan, outside=outside, find_result=lambda *_: SimpleNamespace(addresses=addresses))


ADMIN, FURTHER, OFF = (BoxAddress(f"127.0.{part}", 24, enabled=part != "2.3") for part in ("1.12", "2.2", "2.3"))


def test_every_enabled_address_that_a_way_leads_to_is_looked_at() -> None:
    ctx = context(Eyes(at_127_0_1_12=["own"], at_127_0_2_2=["site"]), (ADMIN, FURTHER, OFF))
    before = ServedProof("127.0.0.11", 8443, ("site",), "site", verified=True, said="verified")
    rows = [look_beside(ctx, *place, before) for place in find_other_addresses(ctx)]
    assert [(row.what, row.seen, row.source) for row in rows] == [
        ("administration address", "another certificate: own", "127.0.1.12:8443"),
        ("further address", "the same certificates, byte by byte: site", "127.0.2.2:8443"),
    ]


def test_an_address_behind_nat_or_without_an_answer_is_never_called_fine() -> None:
    ctx = context(Eyes(), (BoxAddress("10.0.2.15", 24, enabled=True), BoxAddress("10.0.2.21", 24, enabled=True)))
    before = ServedProof("127.0.0.11", 8443, ("site",), "site", verified=True, said="verified")
    seen = {row.source: row.seen for row in (look_beside(ctx, *place, before) for place in find_other_addresses(ctx))}
    assert seen["127.0.1.12:8443"].startswith("could not be looked at: Nothing answers")
    assert seen["10.0.2.21"].startswith("not looked at: ")


def test_a_box_that_reloads_is_waited_for_and_one_that_does_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "RELOAD", 3.0)
    assert build.wait_for_key(context(Eyes(at_127_0_0_12=["old", "right"]), ()), "right").leaf_spki == "right"
    with pytest.raises(FailedError, match="serves another certificate") as caught:
        build.wait_for_key(context(Eyes(at_127_0_0_12=["old"]), ()), "right")
    assert caught.value.hint


def test_a_certificate_that_was_replaced_after_the_inspection_is_not_carried() -> None:
    judged = SimpleNamespace(chain=("a", "b"), spki="k")
    ctx: Any = SimpleNamespace(find_result=lambda *_: judged)
    build.verify_unchanged(ctx, SimpleNamespace(fingerprints=("a", "b"), spki_sha256="k"))  # type: ignore[arg-type]
    for other in (SimpleNamespace(fingerprints=("c", "b"), spki_sha256="k"), SimpleNamespace(fingerprints=("a", "b"), spki_sha256="x")):
        with pytest.raises(ChangedError, match="another certificate") as caught:
            build.verify_unchanged(ctx, other)  # type: ignore[arg-type]
        assert caught.value.hint
