"""What the user tells of a failover pair: two boxes, how they reach each other, what they share.

``docs/reference/pair-plan.md`` is generated from the field descriptions.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from kit.errors import UnexpectedError
from migrate.plan import CommonPlan, OldPlan, Plan
from migrate.plan_parts import Model, ReachPlan
from migrate.plan_values import IpAddress, SecretRef
from migrate.upgrade_plan import CheckPlan, ClientWait, UpgradingPlan


class PairBoxPlan(OldPlan):
    """One box of the pair."""

    peer_sees: ReachPlan | None = Field(default=None, description="Where the other box reaches this one; default: `address` and `port`.")

    @property
    def place(self) -> ReachPlan:
        """Where the other box reaches this one."""
        return self.peer_sees or ReachPlan(host=self.address, port=self.port)


class TwoBoxes(Model):
    """The boxes of a pair, and what they have in common."""

    a: PairBoxPlan = Field(description="The box that is the primary in everyday service.")
    b: PairBoxPlan = Field(description="The other box.")
    shared: tuple[IpAddress, ...] = Field(default=(), description="Addresses that move with the role of the primary; both boxes have them.")
    pre_shared_key: SecretRef = Field(description="Reference to the Inter-appliance Communication Pre-shared Key.")

    @model_validator(mode="after")
    def _two_boxes(self) -> TwoBoxes:
        if (self.a.address, self.a.port) == (self.b.address, self.b.port) or self.a.place == self.b.place:
            raise ValueError("a and b have the same address: a pair is two boxes")
        return self

    def box(self, name: str) -> PairBoxPlan:
        """``a`` or ``b``."""
        return self.a if name == "a" else self.b


class PairPlan(TwoBoxes, CommonPlan):
    """A failover pair."""

    procedure: Literal["pair"] = Field(description="What this plan is for.")
    verify: CheckPlan = Field(default_factory=CheckPlan)


def plan_joined_pair(plan: Plan, new_pin: str) -> PairPlan:
    """The pair that the boxes of a migration by failover are meanwhile: ``a`` the old one, ``b`` the new one with the key ``new_pin``.

    They share no address: visitors are moved by the plan's cutover.
    """
    failover = plan.cutover.failover
    if failover is None:
        raise UnexpectedError("This plan does not move its data by failover.")
    return PairPlan(
        boxshift=1,
        procedure="pair",
        site=plan.site,
        certificate=plan.certificate,
        backup=plan.backup,
        a=PairBoxPlan(**dict(plan.old), peer_sees=failover.old),
        b=PairBoxPlan(**{**dict(plan.new), "pin": new_pin}, peer_sees=failover.new),
        pre_shared_key=failover.pre_shared_key,
    )


class PairMethod(StrEnum):
    """Which box of a pair is upgraded first."""

    SYNC = "sync"  # the primary first; it keeps its role, visitors wait
    ASYNC = "async"  # the backup first; then the roles change


class PairUpgradePlan(TwoBoxes, UpgradingPlan):
    """The upgrade of a failover pair."""

    procedure: Literal["pair-upgrade"] = Field(description="What this plan is for.")
    method: PairMethod = Field(
        default=PairMethod.ASYNC,
        description="`async`: the backup first, then the roles change; visitors wait for a change of addresses only. "
        "`sync`: the primary first, which keeps its role; visitors wait while it is upgraded.",
    )

    @model_validator(mode="after")
    def _clients_can_be_read(self) -> PairUpgradePlan:
        if self.clients.wait is ClientWait.UPDATED and (self.a.accounts.api is None or self.b.accounts.api is None):
            raise ValueError("clients.wait: updated needs accounts.api of both boxes: only the API tells who has updated")
        if self.method is PairMethod.ASYNC and not self.shared:
            raise ValueError("method: async moves the shared addresses from one box to the other, and `shared` names none")
        return self
