"""What the user asked of an upgrade: one box, the versions to reach, and how long its clients are waited for.

``docs/reference/upgrade-plan.md`` is generated from the field descriptions.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, model_validator

from migrate.plan import CommonPlan, OldPlan, PackagesPlan
from migrate.plan_parts import Model
from migrate.plan_values import ClockTime, Duration, VersionText
from migrate.windows import WindowRule

DayName = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAY_NAMES: tuple[DayName, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
GUIDE_WAIT = 86400.0  # what the appliance's guide asks for between two site packages


def parse_zone(value: str) -> str:
    """A name of the time zone database."""
    if value not in available_timezones():
        raise ValueError("is not a time zone such as Europe/Madrid")
    return value


class ClientWait(StrEnum):
    """What an upgrade waits for after each site package."""

    UPDATED = "updated"  # until every client that can update has
    DAY = "day"  # the guide's 24 hours, whatever the clients say
    NONE = "none"  # nobody is waited for: client software was removed first, and is deployed again afterwards


class TargetPlan(Model):
    """Versions to end with; empty: the newest that the path leads to."""

    site: VersionText = Field(default="", description="Site software to end with, such as 22.1.4; default: the newest.")
    base: VersionText = Field(default="", description="Base software to end with, such as 5.3.0; default: the newest.")


class ClientsPlan(Model):
    """Jump Clients between two site packages."""

    wait: ClientWait = Field(
        default=ClientWait.UPDATED,
        description="`updated`: until every client that can update has, at most `at_most`. `day`: the guide's 24 hours. "
        "`none`: nobody is waited for; a gate asks whether all client software was removed.",
    )
    at_most: Duration = Field(
        default=GUIDE_WAIT,
        description="How long `updated` waits. From 24 hours on, the run then goes on and lists who is missing; below, it stops and asks.",
    )


class WindowPlan(Model):
    """When packages may be installed, in local time."""

    zone: Annotated[str, AfterValidator(parse_zone)] = Field(description="Time zone, such as Europe/Madrid.")
    days: tuple[DayName, ...] = Field(default=DAY_NAMES, min_length=1, description="Days on which a window opens.")
    opens: ClockTime = Field(description="Clock time at which it opens, such as 22:00.")
    closes: ClockTime = Field(description="Clock time at which it closes; one that is not after `opens` is of the next day.")
    not_on: tuple[date, ...] = Field(default=(), description="Dates on which nothing is installed, such as 2027-12-24.")

    def rule(self) -> WindowRule:
        """As the reckoning of windows takes it."""
        days = frozenset(DAY_NAMES.index(day) for day in self.days)
        return WindowRule(self.zone, days, self.opens, self.closes, frozenset(self.not_on))


class UpgradePackagesPlan(PackagesPlan):
    """What is installed, and from where."""

    target: TargetPlan = Field(default_factory=TargetPlan)
    longest: Duration = Field(
        default=3600.0, gt=0, description="The longest that one package may take on this box; the guide says 15 minutes to an hour."
    )


class CheckPlan(Model):
    """What is looked at before and after."""

    clock_tolerance: Duration = Field(default=30.0, description="Most the box's clock may be off.")


class UpgradingPlan(CommonPlan):
    """What every plan has by which packages are installed."""

    packages: UpgradePackagesPlan = Field(default_factory=UpgradePackagesPlan)
    clients: ClientsPlan = Field(default_factory=ClientsPlan)
    window: WindowPlan | None = Field(default=None, description="When packages may be installed; default: at any time.")
    verify: CheckPlan = Field(default_factory=CheckPlan)


class UpgradePlan(UpgradingPlan):
    """The upgrade of one box."""

    procedure: Literal["upgrade"] = Field(description="What this plan is for.")
    box: OldPlan = Field(description="The box to upgrade.")

    @model_validator(mode="after")
    def _clients_can_be_read(self) -> UpgradePlan:
        if self.clients.wait is ClientWait.UPDATED and self.box.accounts.api is None:
            raise ValueError("clients.wait: updated needs box.accounts.api: only the API tells who has updated; `day` works without")
        return self
