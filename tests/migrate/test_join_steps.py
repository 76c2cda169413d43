"""The steps of a migration by failover in every state that a pair can be found in, on two boxes of paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from examples_of_plans import make_plan
from test_pair_checks import BACKUP, NONE, PRIMARY, half

from kit.errors import FailedError, RefusedError, RejectedError, UnreachableError
from migrate.facts import FailoverFacts, FailoverRole
from migrate.pair_checks import PairFacts
from migrate.steps.context import STEPS, Context, Done
from migrate.steps.join import return_role

PAIR = (
    "cutover:\n",
    "cutover:\n  data: failover\n  failover: {pre_shared_key: env:PAIR, old: {host: 10.123.7.1}, new: {host: 10.123.7.2}}\n",
)
PEERS = {"a": "10.123.7.2:443", "b": "10.123.7.1:443"}


@dataclass
class PaperPair:
    """Two boxes with roles, and what was asked of them. ``dead``: those that do not answer; ``refuses``: what is refused, by verb."""

    roles: dict[str, FailoverRole]
    peers: dict[str, str] = field(default_factory=lambda: dict(PEERS))
    dead: tuple[str, ...] = ()
    refuses: dict[str, FailedError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def read(self) -> PairFacts:
        halves = {
            name: half(role, guid=name, peer=self.peers[name] if role is not NONE else "")
            for name, role in self.roles.items()
            if name not in self.dead
        }
        return PairFacts(halves.get("a"), halves.get("b"), dict.fromkeys(self.dead, "Nothing answers."))

    def _do(self, verb: str, **roles: FailoverRole) -> PairFacts:
        self.asked.append(verb)
        if verb.split(maxsplit=1)[0] in self.refuses:
            raise self.refuses[verb.split(maxsplit=1)[0]]
        self.roles |= roles
        return self.read()

    def join(self, primary: str) -> PairFacts:
        return self._do(f"join {primary}", a=PRIMARY, b=BACKUP)

    def establish(self, primary: str) -> PairFacts:
        return self._do(f"establish {primary}", a=BACKUP, b=PRIMARY)

    def end(self) -> PairFacts:
        return self._do("end", **dict.fromkeys(set(self.roles) - set(self.dead), NONE))

    def sync(self) -> PairFacts:
        return self._do("sync")

    def resolve(self) -> PairFacts:
        return self._do("resolve", a=BACKUP, b=PRIMARY)

    def promote(self, name: str) -> PairFacts:
        return self._do(f"promote {name}", **{one: PRIMARY if one == name else BACKUP for one in "ab"})

    def open_box(self, name: str) -> Any:
        return PaperBox(self, name)


@dataclass
class PaperBox:
    pair: PaperPair
    name: str

    def read_failover(self) -> FailoverFacts:
        return half(self.pair.roles[self.name], last_sync=1_800_000_000.0).failover

    def set_failover_role(self, role: FailoverRole, *, data_sync_first: bool, progress: object) -> None:
        del progress
        self.pair._do(f"{'sync-first' if data_sync_first else 'alone'} {self.name}", **{self.name: role})

    def close(self) -> None: ...


def run(name: str, pair: PaperPair, *, undo: bool = False) -> Done:
    step = STEPS[name]
    action = step.undo if undo else step.apply
    assert action is not None
    return action(context(pair))


FOLDER: list[Path] = []


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[None]:
    """The run's folder, of which these steps keep one file."""
    FOLDER.append(tmp_path)
    yield
    FOLDER.clear()


def context(pair: PaperPair) -> Context:
    rest: dict[str, Any] = dict.fromkeys(one.name for one in fields(Context))  # of which these steps use nothing else
    return Context(**rest | {"plan": make_plan(PAIR), "pair": pair, "folder": FOLDER[0]})


def paper(a: FailoverRole, b: FailoverRole, **more: Any) -> PaperPair:
    return PaperPair({"a": a, "b": b}, **more)


STRANGER = {"a": "192.0.2.77:443", "b": PEERS["b"]}


@pytest.mark.parametrize(
    ("pair", "asked"),
    [
        (paper(NONE, NONE), ["join a"]),
        (paper(PRIMARY, BACKUP), ["join a"]),
        (paper(NONE, BACKUP), ["end", "join a"]),  # cut off between the two boxes
        (paper(PRIMARY, NONE, peers=STRANGER), ["join a"]),  # which refuses it; nothing is broken first
    ],
)
def test_joining_goes_on_where_it_was_cut_off_and_breaks_no_other_pair(pair: PaperPair, asked: list[str]) -> None:
    run("join-pair", pair)
    assert pair.asked == asked


def test_a_refused_join_says_that_the_old_box_is_as_it_was() -> None:
    with pytest.raises(RejectedError) as caught:
        run("join-pair", paper(NONE, NONE, refuses={"join": RejectedError("The keys differ.")}))
    assert "The keys differ." in caught.value.sentence
    assert "as it was" in caught.value.hint


@pytest.mark.parametrize(
    ("pair", "asked", "words"),
    [
        (paper(PRIMARY, BACKUP), ["end"], "in no failover pair"),
        (paper(NONE, BACKUP), ["end"], "in no failover pair"),
        (paper(PRIMARY, BACKUP, dead=("b",)), ["end"], "was not told"),
        (paper(PRIMARY, NONE, peers=STRANGER), [], "left as it is"),
    ],
)
def test_leaving_ends_this_pair_and_no_other(pair: PaperPair, asked: list[str], words: str) -> None:
    assert words in run("join-pair", pair, undo=True).sentence
    assert pair.asked == asked


@pytest.mark.parametrize("roles", [(PRIMARY, PRIMARY), (BACKUP, BACKUP)])
def test_a_conflict_in_the_change_of_roles_is_resolved_and_merged_first(roles: tuple[FailoverRole, FailoverRole]) -> None:
    pair = paper(*roles)
    run("become-primary", pair)
    assert pair.asked == ["resolve", "sync", "promote b"]


SYNCED = "a data sync gave it every record"


def test_a_merge_that_was_cut_off_is_made_up_for_once_before_the_pair_is_left() -> None:
    """After the boxes have resolved their conflict nothing on them tells that their sessions were not merged."""
    pair = paper(PRIMARY, PRIMARY, refuses={"sync": UnreachableError("Killed here.")})
    with pytest.raises(UnreachableError):
        return_role(context(pair))
    pair.refuses.clear()
    pair.roles |= {"a": PRIMARY, "b": BACKUP}
    return_role(context(pair))
    return_role(context(pair))
    assert pair.asked == ["resolve", "sync", "sync"]


@pytest.mark.parametrize(
    ("pair", "asked", "words"),
    [
        (paper(PRIMARY, BACKUP), [], "The old box is the primary."),
        (paper(BACKUP, PRIMARY), ["promote a"], SYNCED),
        (paper(PRIMARY, PRIMARY), ["resolve", "sync", "promote a"], SYNCED),
        (paper(NONE, NONE), [], "serves by itself"),
        (paper(PRIMARY, BACKUP, dead=("b",)), [], "The old box is the primary."),
        (paper(BACKUP, PRIMARY, dead=("b",)), ["sync-first a"], SYNCED),
        (
            paper(BACKUP, PRIMARY, dead=("b",), refuses={"sync-first": UnreachableError("Silent.")}),
            ["sync-first a", "alone a"],
            "last data sync, 2027-01-15 08:00:00 UTC",
        ),
    ],
)
def test_the_role_goes_back_and_what_is_lost_is_said(pair: PaperPair, asked: list[str], words: str) -> None:
    said = return_role(context(pair))
    assert words in said
    assert pair.asked == asked
    assert ("ONLY THERE" in said) == ("alone a" in asked)
    assert run("become-primary", pair, undo=True).sentence


@pytest.mark.parametrize(
    "pair",
    [
        paper(BACKUP, PRIMARY, dead=("a",)),
        paper(BACKUP, NONE),
        paper(BACKUP, PRIMARY, refuses={"promote": FailedError("The data sync failed.")}),
    ],
)
def test_the_role_does_not_go_back_at_the_price_of_records(pair: PaperPair) -> None:
    with pytest.raises(FailedError) as caught:
        return_role(context(pair))
    assert caught.value.hint
    assert "alone a" not in pair.asked


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (paper(BACKUP, PRIMARY, peers=STRANGER), "another pair"),
        (paper(PRIMARY, BACKUP), "not wiped"),
        (paper(BACKUP, PRIMARY, dead=("b",)), "not known to be parted"),
    ],
)
def test_boxes_are_parted_only_where_both_are_read_and_the_new_one_leads(pair: PaperPair, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        run("end-pair", pair)
    assert run("end-pair", paper(BACKUP, PRIMARY)).evidence[0].seen == "in no pair"


@pytest.mark.parametrize(
    ("pair", "asked"),
    [
        (paper(NONE, NONE), ["establish b"]),
        (paper(NONE, PRIMARY), ["end", "establish b"]),
        (paper(NONE, NONE, dead=("b",)), []),
    ],
)
def test_the_break_is_taken_back_with_the_new_box_leading(pair: PaperPair, asked: list[str]) -> None:
    assert run("end-pair", pair, undo=True).sentence
    assert pair.asked == asked
