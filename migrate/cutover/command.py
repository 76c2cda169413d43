"""Cutover by commands of the operator's own, for whatever stands before the boxes: a firewall, a load balancer, a router.

Each is a program with arguments, never a shell line. What they say is foreign text: secrets are taken out of it and control signs spelt
out before it is shown. A switch counts only when the check says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kit.errors import ChangedError, FailedError, RefusedError, ToolError, UnexpectedError
from kit.plain import spell_out
from kit.process import find_program, run
from kit.secret import Secret, scrub
from kit.waiting import wait_for
from migrate.cutover.contract import Change, CutoverState, Side, Witness
from migrate.cutover.instant import InstantCutover


class CommandStateError(RefusedError):
    """The check does not say the old box, or the command that tells whether a switch is allowed says no."""

    code = "command-state"


class CommandChangedError(ChangedError):
    """The check says that visitors go to neither of the two boxes."""

    code = "command-changed"


class CommandAnswerError(UnexpectedError):
    """The check printed something that is neither an address nor a word that is known."""

    code = "command-answer"


@dataclass(frozen=True)
class CommandCutoverPlan:
    """``check`` prints ``old``, ``new`` or one address. ``ready`` may be empty; it tells by its exit status whether a switch is allowed.

    ``folder``: where they run. ``secret``: what each of them reads on its standard input. ``timeout``: seconds for one of them.
    ``spread``: seconds until the check must show a switch. ``seconds``: how long a switch is expected to take.
    """

    old: str
    new: str
    check: tuple[str, ...]
    switch: tuple[str, ...]
    switch_back: tuple[str, ...]
    folder: Path
    ready: tuple[str, ...] = ()
    secret: Secret | None = None
    timeout: float = 30.0
    spread: float = 60.0
    seconds: float = 10.0


class CommandCutover(InstantCutover):
    """Runs the plan's commands."""

    def __init__(self, plan: CommandCutoverPlan, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(seconds=plan.seconds, clock=clock)
        self.plan = plan

    def read_state(self) -> CutoverState:
        """What the check says now."""
        side, shows = self._parse(self._run(self.plan.check))
        return CutoverState(side, (Witness(f"the check {self._name(self.plan.check)}", side, (shows,)),), (), self._clock())

    def verify_ready(self) -> CutoverState:
        """The check says the old box; every command is there; ``ready`` says that a switch is allowed. None that changes anything runs.

        Raises:
            CommandStateError: it is not so.
            ToolError: a command is missing, or the check failed.

        """
        plan = self.plan
        for argv in filter(None, (plan.check, plan.switch, plan.switch_back, plan.ready)):
            if find_program(str(plan.folder / argv[0]) if "/" in argv[0] else argv[0]) is None:
                raise ToolError(f"The program {argv[0]} of the plan's cutover commands is not there.", hint="Give its whole path.")
        state = self.read_state()
        if state.side is not Side.OLD:
            raise CommandStateError(
                f"{state.witnesses[0].where} says {state.witnesses[0].shows[0]}, not the old box.",
                hint="There is nothing to switch." if state.side is Side.NEW else "Check the addresses in the plan.",
            )
        if plan.ready:
            try:
                self._run(plan.ready)
            except ToolError as no:
                raise CommandStateError(f"A switch is not allowed: {no.sentence}", hint="Mend what it names.") from no
        return state

    def _swing(self, side: Side) -> Change:
        asked_at = self._clock()
        before = self._need((Side.OLD, Side.NEW))
        acted = before.side is not side
        if acted:
            self._run(self.plan.switch if side is Side.NEW else self.plan.switch_back)
        after = wait_for(
            lambda: self._shows(side), what=f"the check to say the {side.value} box", timeout=self.plan.spread if acted else 0.0, poll=0.2
        )
        return Change(side, asked_at, after.read_at, (), acted)

    def _shows(self, side: Side) -> CutoverState | None:
        state = self.read_state()
        if state.side is Side.ELSEWHERE:
            raise self._changed(state)
        if state.side is not side:
            raise FailedError(f"{state.witnesses[0].where} says {state.witnesses[0].shows[0]}.")
        return state

    def _changed(self, state: CutoverState) -> ChangedError:
        said = state.witnesses[0]
        return CommandChangedError(
            f"Visitors are not sent where they should be: {said.where} says {said.shows[0]}.",
            hint="Find out who changed it, then check the plan again.",
        )

    def _parse(self, said: str) -> tuple[Side, str]:
        """The side, and the address that it stands for."""
        word = said.strip()
        boxes = {"old": (Side.OLD, self.plan.old), "new": (Side.NEW, self.plan.new)}
        if word in boxes:
            return boxes[word]
        with suppress(ValueError):
            address = ip_address(word)
            return next((box for box in boxes.values() if ip_address(box[1]) == address), (Side.ELSEWHERE, str(address)))
        raise CommandAnswerError(
            f"The check {self._name(self.plan.check)} printed no address and no word that is known: {self._clean(word)[:80] or 'nothing'}",
            hint="It has to print one of these words or one IP address on its standard output, and nothing else.",
        )

    def _run(self, argv: tuple[str, ...]) -> str:
        program = str(self.plan.folder / argv[0]) if "/" in argv[0] else argv[0]
        try:
            return run([program, *argv[1:]], timeout=self.plan.timeout, stdin=self.plan.secret, cwd=self.plan.folder).text
        except FailedError as error:
            facts = {name: self._clean(fact) if isinstance(fact, str) else fact for name, fact in error.facts.items()}
            raise type(error)(self._clean(error.sentence), hint=error.hint, **facts) from None

    def _name(self, argv: tuple[str, ...]) -> str:
        return spell_out(Path(argv[0]).name)

    def _clean(self, text: str) -> str:
        return spell_out(scrub(text, self.plan.secret) if self.plan.secret else text)
