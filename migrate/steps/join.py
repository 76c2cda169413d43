"""Data by failover: the new box joins the old one as its backup, takes its role over, and leaves it before the old box is wiped.

In what is said of the pair, ``a`` is the old box and ``b`` the new one.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from kit.errors import FailedError, RefusedError, RejectedError
from migrate.appliances.contract import PairPlace
from migrate.facts import FailoverRole, WorkState
from migrate.pair_checks import HalfFacts, PairFacts
from migrate.plan import BoxPlan
from migrate.plan_parts import ReachPlan
from migrate.steps.context import Context, Done, Evidence, PairHands, step

ALONE = "The old box is in no pair, and serves by itself."
MEND = "Mend the new box, then boxshift rollback again. Once it is switched off, the old one goes on without what is only there."


def _leave(ctx: Context) -> Done:
    """The old box is in no pair, and serves by itself."""
    hands = ctx.need_pair()
    now = _need_old(hands.read())
    if stranger := find_stranger(ctx, now):
        return Done(f"The relationship of {stranger} is not of this run's making; it is left as it is.")
    after = hands.end()
    left = f" The new box does not answer ({after.notes['b']}): it was not told." if after.b is None else ""
    return Done(f"The old box is in no failover pair.{left}", None, pair_evidence(after))


@step("join-pair", undo=_leave)
def join_pair(ctx: Context) -> Done:
    """The new box is the backup of the old one. Where that cannot be, nothing is changed on the old box."""
    hands = ctx.need_pair()
    before = hands.read()
    if before.state.startswith("one-sided") and before.find(FailoverRole.BACKUP) == ("b",) and not find_stranger(ctx, before):
        hands.end()  # cut off between the two boxes: the new one knows of it already, the old one does not
    try:
        joined = hands.join("a")
    except RejectedError as error:
        raise RejectedError(
            f"The boxes do not become a pair: {error.sentence}",
            hint="The old box is as it was. Its own pre-shared key has to be the one that cutover.failover.pre_shared_key refers to, "
            "and each box has to reach the other at the address under cutover.failover. Mend that, then boxshift retry.",
        ) from error
    return Done("The new box is the backup of the old one; the keys are the same.", joined, pair_evidence(joined))


@step("first-sync")
def first_sync(ctx: Context) -> Done:
    """A data sync to its real end. The old site's accounts open the new box from here on."""
    synced = ctx.need_pair().sync()
    return Done("The new box holds what the old one holds.", synced, pair_evidence(synced))


def _give_back(ctx: Context) -> Done:
    return Done(return_role(ctx))


@step("become-primary", undo=_give_back)
def become_primary(ctx: Context) -> Done:
    """The new box is the primary, the old one its backup. The old box takes no record after the last one that was synced."""
    hands = ctx.need_pair()
    resolve_conflict(ctx, hands)
    now = hands.promote("b")
    return Done("The new box is the primary, with every record of the old one, which is its backup now.", now, pair_evidence(now))


def resolve_conflict(ctx: Context, hands: PairHands) -> None:
    """Where both have the same role, the boxes decide which keeps it; the sessions of both are merged before anything else is done.

    A file says that the merge is due, since after a crash in between no conflict is left that would tell it.
    """
    due = ctx.folder / "merge.due"
    if hands.read().state.startswith("conflict"):
        due.touch(mode=0o600)
        hands.resolve()
    if due.exists():
        hands.sync()
        due.unlink()


def return_role(ctx: Context) -> str:
    """The old box is the primary again; a sentence says what it holds.

    Raises:
        FailedError: the new box answers but does not give the data back. The roles are as they were.

    """
    hands = ctx.need_pair()
    now = _need_old(hands.read())
    if now.b is None:
        return _return_alone(ctx, hands, now)
    resolve_conflict(ctx, hands)
    now = hands.read()
    if now.is_led_by("a"):
        return "The old box is the primary."
    if now.state == "no relationship":
        return ALONE
    if not now.is_led_by("b"):
        raise FailedError(f"The old box cannot take its role back: {now.state}.", hint="boxshift failover status tells more.")
    try:
        hands.promote("a")
    except FailedError as error:
        raise FailedError(f"The old box did not become the primary again: {error.sentence}", hint=MEND) from error
    return "The old box is the primary again; a data sync gave it every record that the new one had taken."


def _return_alone(ctx: Context, hands: PairHands, now: PairFacts) -> str:
    """The new box cannot be read from here. Its data are taken where the old one reaches it all the same, and left where it does not."""
    with closing(hands.open_box("a")) as old:
        found = old.read_failover()
        if found.role is not FailoverRole.BACKUP:
            return "The old box is the primary." if found.role is FailoverRole.PRIMARY else ALONE
        try:
            old.set_failover_role(FailoverRole.PRIMARY, data_sync_first=True, progress=ctx.progress)
        except FailedError:
            old.set_failover_role(FailoverRole.PRIMARY, data_sync_first=False, progress=ctx.progress)
        else:
            return "The old box is the primary again; a data sync gave it every record that the new one had taken."
    since = f"{datetime.fromtimestamp(found.last_sync, UTC):%Y-%m-%d %H:%M:%S} UTC" if found.last_sync else "at an unknown time"
    return (
        f"The new box does not answer ({now.notes['b']}): the old one is the primary with what it held at its last data sync, {since}. "
        "What visitors wrote on the new box after that is ONLY THERE."
    )


def _join_again(ctx: Context) -> Done:
    """A pair as before, the new box the primary: what it took meanwhile gets to the old one by the first data sync."""
    hands = ctx.need_pair()
    now = _need_old(hands.read())
    if now.b is None:
        return Done(
            f"The new box does not answer ({now.notes['b']}): the old one has what it held when the relationship was broken. "
            "What visitors wrote on the new box after that is ONLY THERE."
        )
    if now.state.startswith("one-sided") and not find_stranger(ctx, now):
        hands.end()
    pair = hands.establish("b")
    return Done("The relationship is established again, with the new box as the primary.", None, pair_evidence(pair))


@step("end-pair", undo=_join_again)
def end_pair(ctx: Context) -> Done:
    """No relationship on either box, read back on both: what is done to the old box from here on cannot reach the new one."""
    hands = ctx.need_pair()
    before = hands.read()
    if stranger := find_stranger(ctx, before):
        raise RefusedError(f"Somebody made {stranger} part of another pair.", hint="Find out who, before anything is wiped.")
    if FailoverRole.PRIMARY in {half.failover.role for name, half in before.halves() if name == "a"}:
        raise RefusedError("The old box is the primary again, so it is not wiped.", hint="Somebody changed the roles. boxshift rollback.")
    hands.end()
    parted = read_parted(ctx)
    return Done("The relationship is broken, on both boxes.", parted, pair_evidence(parted))


def read_parted(ctx: Context) -> PairFacts:
    """Both boxes, read now, neither of them in a pair.

    Raises:
        RefusedError: one is, or could not be read.

    """
    now = ctx.need_pair().read()
    if now.state != "no relationship":
        unread = "".join(f" {note}" for note in now.notes.values())
        raise RefusedError(f"The boxes are not known to be parted: {now.state}.{unread}", hint="Read Management > Failover on both boxes.")
    return now


def find_stranger(ctx: Context, now: PairFacts) -> str:
    """The box that is in a pair with a third one; empty where there is none."""
    failover = ctx.plan.cutover.failover
    if failover is None:
        return ""
    others = {"a": _place(ctx.plan.new, failover.new), "b": _place(ctx.plan.old, failover.old)}
    halves = [(name, half.failover) for name, half in now.halves()]
    found = [name for name, facts in halves if facts.role is not FailoverRole.NONE and facts.peer != others[name]]
    return {"a": "the old box", "b": "the new box"}[found[0]] if found else ""


def _place(box: BoxPlan, told: ReachPlan | None) -> str:
    return str(PairPlace(told.host, told.port) if told is not None else PairPlace(box.address, box.port))


def _need_old(now: PairFacts) -> PairFacts:
    if now.a is None:
        raise FailedError(f"The old box cannot be read: {now.notes['a']}", hint="Reach it, then boxshift rollback again.")
    return now


def pair_evidence(pair: PairFacts) -> tuple[Evidence, ...]:
    """What each box's own page says."""
    names = {"a": "the old box", "b": "the new box"}
    return tuple(Evidence(names[name], _said(half), "Management > Failover") for name, half in pair.halves())


def _said(half: HalfFacts) -> str:
    facts = half.failover
    if facts.role is FailoverRole.NONE:
        return "in no pair"
    sync = f"; data sync {facts.sync.value}" if facts.sync is not WorkState.NEVER else ""
    return f"{facts.role.value} of a pair with {facts.peer}{sync}"
