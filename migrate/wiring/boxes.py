"""Opens drivers for the boxes of a plan, pinned to what is known of them at this point of the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kit.secret import Secret
from migrate.appliances.contract import Account, ApiAccount, Appliance, Credentials, Endpoint
from migrate.plan import AccountPlan, Accounts, BoxPlan, CommonPlan, Plan
from migrate.plan_file import LoadedPlan
from migrate.runbook import Json
from migrate.secrets import resolve_secret
from migrate.upgrade_plan import UpgradePlan

Reveal = Callable[[str, str], Secret]
FACTORY_PASSWORD = "password"  # noqa: S105 - the vendor's published default, changed at first login


TOUCHING = 0.005  # seconds between two calls of one loop


def make_reveal(loaded: LoadedPlan[CommonPlan]) -> Reveal:
    """Resolves references of a plan, whose relative paths count from its folder."""

    def reveal(reference: str, what: str) -> Secret:
        return resolve_secret(reference, base=loaded.folder, what=what)

    return reveal


class Stopwatch:
    """When a node was inside appliances, servers and hypervisors: the outermost call of each thread counts.

    ``spells`` are (begin, end) in Unix seconds, in order, those that touch made one: what lies between them is boxshift's own time.
    """

    def __init__(self) -> None:
        self.spells: list[tuple[float, float]] = []
        self._inside = threading.local()
        self._adding = threading.Lock()

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, its time counted."""

        def timed_call(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._inside, "busy", False):
                return call(*args, **kwargs)
            self._inside.busy = True
            begin = time.time()
            try:
                return call(*args, **kwargs)
            finally:
                self._inside.busy = False
                self._add(begin, time.time())

        return timed_call

    def _add(self, begin: float, end: float) -> None:
        with self._adding:
            self._join(begin, end)

    def _join(self, begin: float, end: float) -> None:
        if self.spells and begin - self.spells[-1][1] < TOUCHING:
            begin = min(begin, self.spells.pop()[0])
        self.spells.append((round(begin, 3), round(end, 3)))


class Timed:
    """Any adapter, with every call counted by a stopwatch."""

    def __init__(self, inner: object, watch: Stopwatch) -> None:
        self._inner = inner
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._watch.timed(value) if callable(value) else value


class PlannedBoxes:
    """The boxes of one plan, seen from one node of one run."""

    def __init__(self, plan: Plan, results: Mapping[str, Json], reveal: Reveal, watch: Stopwatch, patience: float) -> None:
        self._plan = plan
        self._results = results
        self._reveal = reveal
        self._watch = watch
        self._patience = patience

    def open_old(self) -> Appliance:
        """Pinned to the plan's key, and to the site's own once it is known."""
        return self._open(self._plan.old, (self._plan.old.pin, *self._site_key()), self._credentials(self._plan.old, restored=False))

    def open_new(self, *, restored: bool | None = None) -> Appliance:
        """After a restore, or a data sync, the site console and the API have the old box's accounts."""
        provisioned = find_value(self._results, "provision")
        pin = str(provisioned["pin"]) if provisioned else (self._plan.new.pin or "")
        after = not self._results.keys().isdisjoint(("restore", "first-sync")) if restored is None else restored
        return self._open(self._plan.new, (pin, *self._site_key()), self._credentials(self._plan.new, restored=after))

    @property
    def has_addresses(self) -> bool:
        """Whether the new box has been given its addresses."""
        return "service-address" in self._results

    def factory_credentials(self, *, of_old: bool = False) -> Credentials:
        """The plan's word, or the vendor's published default. A new box may have been told another password before its first start."""
        box = self._plan.old if of_old else self._plan.new
        password = self._reveal(box.factory_password, "the factory password") if box.factory_password else Secret(FACTORY_PASSWORD)
        account = Account(box.factory_user, password)
        return Credentials(account, account)

    def _open(self, box: BoxPlan, pins: tuple[str, ...], credentials: Credentials) -> Appliance:
        return open_driver(box, pins, credentials, self._plan.site.language, self._watch, self._patience)

    def _credentials(self, box: BoxPlan, *, restored: bool) -> Credentials:
        site = self._plan.old if restored or box is self._plan.old else self._plan.new
        who = "the old box" if box is self._plan.old else "the new box"
        return read_credentials(site.accounts, box.accounts, self._reveal, who)

    def _site_key(self) -> tuple[str, ...]:
        reading = find_value(self._results, "diagnose-certificate")
        return (str(reading["spki"]),) if reading else ()


def find_value(results: Mapping[str, Json], node: str) -> dict[str, Json] | None:
    """The value that a node left as JSON; None where it left none."""
    stored = results.get(node)
    value = stored.get("value") if isinstance(stored, dict) else None
    return value if isinstance(value, dict) else None


def find_site_key(results: Mapping[str, Json]) -> str:
    """SHA-256 of the key that an upgrade found visitors to be served with; empty where it has not looked yet."""
    return str((find_value(results, "read-service") or {}).get("leaf_spki", ""))


class PlannedBox:
    """The one box of an upgrade. A base package may make its administration address serve the site's own key, so that is good as well."""

    def __init__(self, plan: UpgradePlan, results: Mapping[str, Json], reveal: Reveal, watch: Stopwatch, patience: float) -> None:
        self._plan = plan
        self._site_key = find_site_key(results)
        self._reveal = reveal
        self._watch = watch
        self._patience = patience

    def open(self) -> Appliance:
        """A fresh driver; the caller closes it."""
        box = self._plan.box
        credentials = read_credentials(box.accounts, box.accounts, self._reveal, "the box")
        return open_driver(box, (box.pin, self._site_key), credentials, self._plan.site.language, self._watch, self._patience)


def open_planned_box(loaded: LoadedPlan[UpgradePlan]) -> Appliance:
    """The box of an upgrade's plan outside any run; the caller closes it."""
    from migrate.wiring.machines import LibvirtMachines

    patience = LibvirtMachines().patience(loaded.plan.box.machine)
    return PlannedBox(loaded.plan, {}, make_reveal(loaded), Stopwatch(), patience).open()


def read_credentials(site: Accounts, appliance: Accounts, reveal: Reveal, who: str) -> Credentials:
    """What opens a box, passwords resolved: /login and the API as ``site`` says, /appliance as ``appliance`` says."""

    def account(plan: AccountPlan, console: str) -> Account:
        return Account(plan.user, reveal(plan.password, f"password of {plan.user} on {console} of {who}"))

    api = ApiAccount(site.api.client_id, reveal(site.api.secret, f"the API account of {who}")) if site.api else None
    return Credentials(account(site.site, "/login"), account(appliance.appliance, "/appliance"), api)


def open_driver(
    box: BoxPlan, pins: tuple[str, ...], credentials: Credentials, language: str | None, watch: Stopwatch, patience: float
) -> Appliance:
    """A driver for a box, its calls counted by the stopwatch."""
    from migrate.appliances.bomgar.driver import BomgarAppliance
    from migrate.wiring.machines import GUEST_ADMIN

    forwarded = box.machine is not None and box.machine.image and not box.machine.has_own_address
    endpoint = Endpoint(box.address, box.port, tuple(pin for pin in pins if pin), GUEST_ADMIN if forwarded else "")
    timed: Any = Timed(BomgarAppliance(endpoint, credentials, language=language, patience=patience), watch)
    opened: Appliance = timed
    return opened
