"""Reads a plan file: which procedure it is for, its faults all at once, and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kit.errors import UsageError
from migrate.pair_plan import PairPlan, PairUpgradePlan
from migrate.plan import CommonPlan, P_co, Plan
from migrate.upgrade_plan import UpgradePlan

if TYPE_CHECKING:
    from kit.yaml_lines import Document, Fault

MAX_BYTES = 64_000


class PlanError(UsageError):
    """The plan file has faults; ``faults`` lists them all, each with its line."""

    code = "plan"

    def __init__(self, sentence: str, *, hint: str = "", faults: Sequence[str] = ()) -> None:
        super().__init__(sentence, hint=hint, faults="\n".join(faults))

    @property
    def faults(self) -> tuple[str, ...]:
        """Each as ``line 3: site.name: what is wrong``."""
        return tuple(str(self.facts.get("faults") or "").splitlines())


PROCEDURES: dict[str, type[CommonPlan]] = {"migration": Plan, "upgrade": UpgradePlan, "pair": PairPlan, "pair-upgrade": PairUpgradePlan}


@dataclass(frozen=True)
class LoadedPlan(Generic[P_co]):
    """A plan with the place it came from: relative paths in it are relative to ``folder``. ``digest``: SHA-256 of the file, in hex."""

    plan: P_co
    path: Path
    digest: str

    @property
    def folder(self) -> Path:
        return self.path.parent


def read_plan(path: Path) -> LoadedPlan:
    """Read and validate the plan file of a migration.

    Raises:
        PlanError: it cannot be read, is for another procedure, or has faults: all of them at once, each with its line.

    """
    loaded = read_any_plan(path)
    if not isinstance(loaded.plan, Plan):
        raise PlanError(f"The plan {path} is not one of a migration.", hint="boxshift run performs whatever a plan is for.")
    return LoadedPlan(loaded.plan, loaded.path, loaded.digest)


def read_upgrade_plan(path: Path, hint: str) -> LoadedPlan[UpgradePlan]:
    """The same of one box's upgrade. ``hint``: what to do where it is for something else, which is a UsageError."""
    loaded = read_any_plan(path)
    if not isinstance(loaded.plan, UpgradePlan):
        raise UsageError(f"The plan {path} is not one of an upgrade.", hint=hint)
    return LoadedPlan(loaded.plan, loaded.path, loaded.digest)


def read_any_plan(path: Path) -> LoadedPlan[CommonPlan]:
    """The same for every procedure; the plan's class tells which."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PlanError(f"The plan {path} cannot be read: {error.strerror}.", hint="boxshift init writes one.") from error
    return LoadedPlan(parse_any_plan(raw, str(path)), path.resolve(), hashlib.sha256(raw).hexdigest())


def parse_any_plan(raw: bytes, source: str) -> CommonPlan:
    """The plan in ``raw`` (YAML); ``source`` names it in messages.

    Raises:
        PlanError: all faults at once, each with its line; no value is repeated, as it may be a secret in the wrong place.

    """
    document = _parse_document(raw, source)
    faults = list(document.faults)
    plan = None
    wanted = document.tree.get("procedure", "migration") if isinstance(document.tree, dict) else "migration"
    model = PROCEDURES.get(wanted) if isinstance(wanted, str) else None
    if model is None:
        from kit.yaml_lines import Fault

        known = ", ".join(PROCEDURES)
        raise _plan_error(source, [*faults, Fault(document.lines.get(("procedure",), 1), f"procedure: is none of {known}")])
    try:
        plan = model.model_validate(document.tree)
    except ValidationError as invalid:
        faults += [_render_fault(detail, document.lines) for detail in invalid.errors(include_url=False, include_input=False)]
    if plan is None or faults:
        raise _plan_error(source, faults)
    return plan


def parse_plan(raw: bytes, source: str) -> Plan:
    """The same where it must be the plan of a migration."""
    plan = parse_any_plan(raw, source)
    if not isinstance(plan, Plan):
        raise PlanError(f"The plan {source} is not one of a migration.")
    return plan


def _parse_document(raw: bytes, source: str) -> Document:
    from kit.yaml_lines import FaultyYaml, parse_yaml

    if len(raw) > MAX_BYTES:
        raise PlanError(f"The plan {source} is larger than a plan can be ({len(raw)} bytes).", hint="Is it the right file?")
    try:
        document = parse_yaml(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PlanError(f"The plan {source} is not UTF-8 text (byte {error.start}).", hint="Save it as UTF-8.") from None
    except FaultyYaml as faulty:
        raise PlanError(f"The plan {source} is not valid YAML.", hint="Mend the line named.", faults=_render_lines(faulty.faults)) from None
    if not isinstance(document.tree, dict) and not document.faults:
        what = "is empty" if document.tree is None else "is no list of settings"
        raise PlanError(f"The plan {source} {what}.", hint="boxshift init writes one.")
    return document


def _plan_error(source: str, faults: Sequence[Fault]) -> PlanError:
    count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
    hint = "Mend the lines named; docs/reference/plan.md lists all settings."
    return PlanError(f"The plan {source} has {count}.", hint=hint, faults=_render_lines(faults))


def _render_lines(faults: Sequence[Fault]) -> list[str]:
    return [f"line {fault.line}: {fault.text}" for fault in sorted(faults, key=lambda fault: fault.line)]


def _render_fault(detail: ErrorDetails, lines: dict[tuple[str, ...], int]) -> Fault:
    from kit.yaml_lines import Fault, render_key

    place = tuple(str(part) for part in detail["loc"])
    known = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in lines), ())
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "is not a setting of a plan"
    elif detail["type"] == "missing":
        message = "is missing"
    elif detail["type"] == "model_type":
        message = "must hold settings, one a line"
    shown = ".".join(render_key(part) for part in place)
    return Fault(lines.get(known, 1), f"{shown or 'the plan'}: {message}")
