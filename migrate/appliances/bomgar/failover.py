"""The driver's part in failover pairs. Everything is done by the pages, and by the API where it is documented: changes of roles."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kit.errors import RejectedError, UnexpectedError
from kit.progress import Progress
from kit.secret import Secret
from migrate.appliances.bomgar.inventory import BomgarInventory
from migrate.appliances.bomgar.pages import failover
from migrate.appliances.bomgar.patience import ensure, twice, wait_until
from migrate.appliances.bomgar.words import Term
from migrate.appliances.contract import PairPlace
from migrate.appliances.errors import DataSyncFailedError, FailoverRefusedError, RoleChangeFailedError
from migrate.facts import FailoverFacts, FailoverRole, WorkState

LONGEST_SYNC = 12 * 3600.0  # seconds
LOOK_EVERY = 0.5
SILENCE = 30.0  # seconds: who says nothing for so long is not at a data sync any more


class BomgarFailover(BomgarInventory):
    """One box of a pair."""

    def read_failover(self) -> FailoverFacts:
        """Role, peer, data syncs, shared addresses, conflict."""
        return failover.read_failover(self._site)

    def is_pre_shared_key_set(self) -> bool | None:
        """What the page says; None where it does not tell."""
        return failover.is_key_set(self._site)

    def set_pre_shared_key(self, key: Secret) -> None:
        """Set the Inter-appliance Communication Pre-shared Key; that it is set is read back, its value cannot be.

        Raises:
            FailoverRefusedError: the box does not take it.

        """
        twice(lambda: failover.set_key(self._site, key))
        if failover.is_key_set(self._site) is False:
            raise UnexpectedError(f"{self._anyone.where} took the pre-shared key, but its page says that none is set.")

    def establish_failover(self, peer: PairPlace, reverse: PairPlace) -> FailoverFacts:
        """Make this site the primary of a pair with the site at ``peer``, which reaches this one at ``reverse``.

        Raises:
            FailoverRefusedError: it is in another pair, or the box refuses: keys or versions differ, the peer does not answer.

        """

        def look() -> FailoverFacts | None:
            now = self.read_failover()
            if now.role is FailoverRole.NONE:
                return None
            if now.role is FailoverRole.PRIMARY and now.peer == str(peer):
                return now if now.peer_role is FailoverRole.BACKUP else None
            raise FailoverRefusedError(
                f"{self._anyone.where} is in a pair already: it is the {now.role.value} of {now.peer}.", hint="Break that one first."
            )

        def act() -> None:
            if self.read_failover().role is FailoverRole.NONE:
                failover.establish(self._site, peer, reverse)

        return ensure(look, act, what=f"{self._anyone.where} to be the primary of {peer}", timeout=120 * self._patience)

    def break_failover(self) -> FailoverFacts:
        """End the relationship, of both sites where they reach each other. Nothing but the relationship is lost.

        A box that is busy with a data sync or a change of roles is waited for.
        """

        def look() -> FailoverFacts | None:
            now = self.read_failover()
            if now.role is not FailoverRole.NONE:
                failover.press_button(self._site, Term.BREAK_FAILOVER, "to break the relationship")
                now = self.read_failover()
            return now if now.role is FailoverRole.NONE else None

        return wait_until(look, what=f"{self._anyone.where} to be in no pair", timeout=300 * self._patience)

    def share_addresses(self, addresses: Sequence[str]) -> FailoverFacts:
        """Have exactly these addresses ticked as shared; the box must have them."""
        wanted = set(addresses)

        def look() -> FailoverFacts | None:
            now = self.read_failover()
            return now if {row.address for row in now.shared if row.shared} == wanted else None

        return ensure(
            look,
            lambda: failover.share_addresses(self._site, sorted(wanted)),
            what=f"the shared addresses of {self._anyone.where}",
            timeout=60 * self._patience,
        )

    def sync_now(self, *, progress: Progress) -> FailoverFacts:
        """A whole data sync: it begins after this call does, and this returns when it has ended well.

        Raises:
            FailoverRefusedError: the box does not begin one.
            DataSyncFailedError: it failed; says what the box says.
            DeadlineError: no end in half a day.

        """
        before = self._wait_for_end_of_sync(progress)  # one that runs already may have begun before what the caller wants synced
        if before.role is FailoverRole.NONE:
            raise FailoverRefusedError(f"{self._anyone.where} is not in a failover pair.", hint="Establish the relationship first.")
        self._let_the_second_pass(before)
        twice(lambda: failover.press_button(self._site, Term.SYNC_NOW, "the data sync"))

        def look() -> FailoverFacts | None:
            now = self.read_failover()
            self._tell(now, progress)
            is_new = (now.sync_ended, now.last_sync) != (before.sync_ended, before.last_sync)
            return now if is_new and now.sync is not WorkState.RUNNING else None

        what = f"the end of the data sync of {self._anyone.where}"
        after = wait_until(look, what=what, timeout=LONGEST_SYNC, poll=LOOK_EVERY, silence=SILENCE * self._patience)
        self._raise_if_failed(after)
        return after

    def _wait_for_end_of_sync(self, progress: Progress) -> FailoverFacts:
        def look() -> FailoverFacts | None:
            now = self.read_failover()
            self._tell(now, progress)
            return now if now.sync is not WorkState.RUNNING else None

        return wait_until(
            look,
            what=f"the end of the data sync of {self._anyone.where}",
            timeout=LONGEST_SYNC,
            poll=LOOK_EVERY,
            silence=SILENCE * self._patience,
        )

    def _let_the_second_pass(self, before: FailoverFacts) -> None:
        """Times on the page are full seconds: the next end must be told from the last one."""
        last = max(before.sync_ended or 0.0, before.last_sync or 0.0)
        clock = self.read_clock()
        ahead = last + 1.0 - (time.time() + clock.offset - clock.uncertainty)
        if 0 < ahead < 5:
            time.sleep(ahead)

    def _tell(self, now: FailoverFacts, progress: Progress) -> None:
        if now.sync is WorkState.RUNNING:
            percent = f" {now.sync_percent} %" if now.sync_percent is not None else ""
            progress.update(f"data sync{percent}")

    def _raise_if_failed(self, now: FailoverFacts) -> None:
        if now.sync is WorkState.FAILED:
            raise DataSyncFailedError(
                f"The data sync of {self._anyone.where} failed: {now.sync_note or 'the page does not say why'}",
                hint="Mend what it names; then sync again. The backup is as it was before.",
            )

    def set_failover_role(self, role: FailoverRole, *, data_sync_first: bool, force: bool = False, progress: Progress) -> FailoverFacts:
        """Become the primary or the backup; the peer takes the other role. By the API where there is an account, else by the page.

        ``force`` counts only at the primary that shall become the backup: also where its peer does not answer.

        Raises:
            FailoverRefusedError: the box does not begin it.
            RoleChangeFailedError: it began and failed; says what the box says.

        """
        if role is FailoverRole.NONE:
            raise FailoverRefusedError("A site of a pair is the primary or the backup.", hint="Breaking the relationship is another call.")

        def look() -> FailoverFacts | None:
            now = self.read_failover()
            self._tell(now, progress)
            if now.role_change is WorkState.FAILED and began:
                raise RoleChangeFailedError(
                    f"The change of roles of {self._anyone.where} failed: {now.role_change_note or 'the page does not say why'}",
                    hint="Look at both sites, then try again: no site takes the role before the other has left it.",
                )
            is_done = now.role is role and now.role_change is not WorkState.RUNNING and not now.conflict
            return now if is_done and (force or now.peer_role is not role) else None

        began = False
        found = look()
        if found is not None:
            return found

        def act() -> None:
            nonlocal began
            if self.read_failover().role_change is not WorkState.RUNNING:
                self._begin_when_idle(role, data_sync_first=data_sync_first, force=force, progress=progress)
            began = True

        what = f"{self._anyone.where} to become the {role.value}"
        longest = LONGEST_SYNC if data_sync_first else 300 * self._patience
        return ensure(look, act, what=what, timeout=longest, poll=LOOK_EVERY, silence=SILENCE * self._patience)

    def _begin_when_idle(self, role: FailoverRole, *, data_sync_first: bool, force: bool, progress: Progress) -> None:
        """Begin, not while a data sync runs: the box would refuse it. One may start by itself at any moment, so that is looked at again."""
        for last_try in (False, False, True):
            self._wait_for_end_of_sync(progress)
            try:
                self._begin_role_change(role, data_sync_first=data_sync_first, force=force)
            except FailoverRefusedError:
                if last_try or self.read_failover().sync is not WorkState.RUNNING:
                    raise
            else:
                return

    def _begin_role_change(self, role: FailoverRole, *, data_sync_first: bool, force: bool) -> None:
        def by_page() -> None:
            primary = role is FailoverRole.PRIMARY
            ticks = [(Term.PULL_FIRST, data_sync_first), *(() if primary else ((Term.BECOME_ANYWAY, force),))]
            button = Term.BECOME_PRIMARY if primary else Term.BECOME_BACKUP
            failover.press_button(self._site, button, f"to become the {role.value}", ticks)

        try:
            self._ask(lambda api: api.set_failover_role(role.value, data_sync_first=data_sync_first, force=force), by_page)
        except FailoverRefusedError:
            raise
        except RejectedError as error:
            raise FailoverRefusedError(error.sentence, hint=error.hint) from error

    def resolve_conflict(self) -> FailoverFacts:
        """Fix This Error: of two sites with the same role, the box chooses which takes the other one.

        Raises:
            FailoverRefusedError: it cannot; says why.

        """

        def look() -> FailoverFacts | None:
            now = self.read_failover()
            return now if not now.conflict else None

        def act() -> None:
            failover.press_button(self._site, Term.FIX_ERROR, "to resolve the conflict")

        return ensure(look, act, what=f"the conflict of {self._anyone.where} to be resolved", timeout=300 * self._patience)
