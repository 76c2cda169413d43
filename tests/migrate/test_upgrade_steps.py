"""The button of a package is pressed inside of a window and on a box that is alone, by what holds right before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from examples_of_plans import make_upgrade_plan

from kit.errors import RefusedError
from kit.progress import Silent
from migrate.facts import ClockReading, FailoverRole, PackageKind, PackageOffer, Version
from migrate.steps.upgrade import install_package
from migrate.upgrade_path import PathItem

WINDOW = ("clients:", "window: {zone: UTC, opens: '22:00', closes: '02:00'}\nclients:")
ITEM = PathItem("base-5.3.0", "Base 5.3.0", PackageKind.BASE, "5.3.0", "3")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class Box:
    """What the step asks of a box. ``pressed``: when a package was installed."""

    def __init__(self, clock: Clock) -> None:
        self.role, self.base, self._clock = FailoverRole.NONE, Version("5.1.0", "1"), clock
        self.running: Version | None = None
        self.pressed: list[float] = []
        self.offers: tuple[PackageOffer, ...] = (PackageOffer(ITEM.name, ITEM.kind, ITEM.version, ITEM.build),)

    def read_versions(self) -> tuple[Version, Version]:
        return self.base, Version("21.1.1", "1")

    def read_failover(self) -> SimpleNamespace:
        return SimpleNamespace(role=self.role)

    def read_clock(self) -> ClockReading:
        return ClockReading(0.0, 0.5)

    def read_offers(self) -> tuple[PackageOffer, ...]:
        return self.offers

    def finish_installation(self, *, progress: object) -> None:
        """Whatever runs ends now."""
        del progress
        self.base = self.running or self.base

    def install_offer(self, offer: PackageOffer, **_: object) -> None:
        self.pressed.append(self._clock.now)
        self.base = Version(offer.version, offer.build)

    def close(self) -> None:
        """Nothing is held."""


class Clock:
    """``sleep`` takes until the next full hour, and tells ``meanwhile`` of it."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.meanwhile: Callable[[], None] = lambda: None

    def sleep(self, _: float) -> None:
        self.now = (self.now // 3600 + 1) * 3600
        self.meanwhile()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Box, Clock], Any]:
    def call(box: Box, clock: Clock) -> Any:
        monkeypatch.setattr("migrate.steps.upgrade.time.sleep", clock.sleep)
        node = SimpleNamespace(name="install", params={"item": asdict(ITEM)})
        ctx: Any = SimpleNamespace(
            plan=make_upgrade_plan(WINDOW), base=tmp_path, folder=tmp_path, node=node,
            open_box=lambda: box, read_time=lambda: clock.now, stop_wanted=lambda: False, progress=Silent(), pair=None,
        )  # fmt: skip
        return install_package(ctx)

    return call


@pytest.mark.parametrize(
    ("begun", "pressed"),
    [
        ("2026-11-29T23:00", "2026-11-29T23:00"),  # the window is open
        ("2026-11-30T02:30", "2026-11-30T22:00"),  # the package before took longer than the window
        ("2026-11-30T01:30", "2026-11-30T22:00"),  # it is open, and has no room for a package any more
    ],
)
def test_a_package_waits_for_a_window_with_room_for_it(install: Callable[[Box, Clock], Any], begun: str, pressed: str) -> None:
    clock = Clock(at(begun))
    box = Box(clock)
    install(box, clock)
    assert box.pressed == [at(pressed)]


def test_nothing_is_installed_on_a_box_that_became_one_of_a_pair_meanwhile(install: Callable[[Box, Clock], Any]) -> None:
    clock = Clock(at("2026-11-30T12:00"))
    box = Box(clock)

    def join() -> None:
        box.role = FailoverRole.BACKUP

    clock.meanwhile = join
    with pytest.raises(RefusedError, match="backup of a failover pair by now"):
        install(box, clock)
    assert box.pressed == []


def test_an_installation_that_ends_while_a_window_is_waited_for_is_seen(install: Callable[[Box, Clock], Any]) -> None:
    clock = Clock(at("2026-11-30T12:00"))
    box = Box(clock)

    def end() -> None:
        box.base, box.offers = Version(ITEM.version, ITEM.build), ()

    clock.meanwhile = end
    assert install(box, clock).value.version == ITEM.version
    assert box.pressed == []


def test_an_installation_that_runs_already_is_seen_to_its_end_whatever_the_window(install: Callable[[Box, Clock], Any]) -> None:
    clock = Clock(at("2026-11-30T12:00"))
    box = Box(clock)
    box.running = Version(ITEM.version, ITEM.build)
    assert install(box, clock).value.version == ITEM.version
    assert (box.pressed, clock.now) == ([], at("2026-11-30T12:00"))


@pytest.mark.parametrize("offers", [(), (PackageOffer(ITEM.name, ITEM.kind, ITEM.version, ITEM.build, "needs another"),)])
def test_where_nothing_was_pressed_nobody_is_told_to_call_support(
    install: Callable[[Box, Clock], Any], tmp_path: Path, offers: tuple[PackageOffer, ...]
) -> None:
    clock = Clock(at("2026-11-29T23:00"))
    box = Box(clock)
    box.offers = offers
    with pytest.raises(RefusedError, match=r"not offered any more|greyed out"):
        install(box, clock)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".began"], "a bundle for support"
