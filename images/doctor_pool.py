"""Looking at a hypervisor that keeps its files itself: rights, our pool, room, networks, what machines run on. Changes nothing there."""

from __future__ import annotations

import os
from collections.abc import Iterator

from images import daemon
from images.daemon import SESSION_URI, SYSTEM_URI
from images.doctor import DISK_NEEDED, DISK_WANTED, Finding, Verdict, run_checks, weigh
from images.domain import Accelerator
from images.home import Home
from images.hypervisor_networks import list_networks
from images.machine import Machines, open_machines
from images.pool import Pool
from images.pool_place import VARIABLE, PoolPlace, find_pool_folder


def check_hypervisor(home: Home) -> Iterator[Finding]:
    """All findings of it; none where its files are folders of this computer. What fails itself is "could not tell"."""
    yield from run_checks(home, (("hypervisor", _look),))


def _look(home: Home) -> Iterator[Finding]:
    # The one that would be used, except for root's private daemon, which looking should not start and whose files are here.
    uri = os.environ.get(daemon.VARIABLE) or (SYSTEM_URI if os.geteuid() == 0 else SESSION_URI)
    if find_pool_folder(uri) is None:
        return
    with open_machines(home, uri=uri) as machines:
        place = machines.place
        if isinstance(place, PoolPlace):
            checks = (
                ("rights", lambda _: check_rights(machines)), ("pool", lambda _: check_pool(place.pool)),
                ("networks", lambda _: check_networks(machines, place)), ("hypervisor-speed", lambda _: check_speed(place)),
                ("clones", lambda _: check_clones(place)),
            )  # fmt: skip
            yield from run_checks(home, checks)


def check_rights(machines: Machines) -> Iterator[Finding]:
    """Whether we may change anything there."""
    domains = machines.hypervisor.list_domains()
    yield Finding("rights", Verdict.OK, f"The hypervisor lets us read and write; machines there, ours and others': {len(domains)}.")


def check_pool(pool: Pool) -> Iterator[Finding]:
    """Where files would be, and how much room there is."""
    found = pool.find()
    if found is None:
        yield Finding(
            "pool",
            Verdict.UNKNOWN,
            f"Files will be kept in {pool.folder} on the hypervisor; how much room it has shows when the first machine is made.",
            f"Set {VARIABLE} to keep them in another folder there.",
        )
    elif found.free is None:
        yield Finding("pool", Verdict.UNKNOWN, f"The storage pool {found.name} is stopped.", f"virsh pool-start {found.name}")
    else:
        what, do = f"free on the hypervisor at {found.path}", "Free space there, or name another folder: " + VARIABLE
        yield weigh("pool", found.free, DISK_WANTED, DISK_NEEDED, what, do)


def check_networks(machines: Machines, place: PoolPlace) -> Iterator[Finding]:
    """What machines can be put on, so that they are reached."""
    active = [one.name for one in list_networks(machines.hypervisor) if one.active]
    if active:
        yield Finding("networks", Verdict.OK, f"Networks there that machines can be on: {', '.join(active)}.")
    elif place.is_remote:
        yield Finding(
            "networks",
            Verdict.WARNING,
            "The hypervisor has no active network, and ports of user networking would be on its own loopback.",
            "Start one there (virsh net-start default), or name one of its bridges with --bridge.",
        )


def check_clones(place: PoolPlace) -> Iterator[Finding]:
    """Whether machines there start warm."""
    obstacle, found = place.templates.find_obstacle(), place.pool.find()
    if obstacle:
        yield Finding("clones", Verdict.WARNING, f"Machines boot cold there: {obstacle}.", "All works, slower.")
        return
    saved = len(place.templates.list_all()) if found is not None and found.free is not None else 0
    yield Finding("clones", Verdict.OK, f"Machines with our agent and a network there are cloned where they run; templates there: {saved}.")


def check_speed(place: PoolPlace) -> Iterator[Finding]:
    """What was proved there; where nothing was made yet, nothing is made for it."""
    if place.pool.find() is None:
        yield Finding("hypervisor-speed", Verdict.UNKNOWN, "What its machines run on is proved when the first one is made.")
        return
    proved = place.find_acceleration()
    if proved.accelerator is Accelerator.KVM:
        yield Finding("hypervisor-speed", Verdict.OK, f"KVM works there: a tiny system came through in {proved.seconds:g} s.")
    else:
        yield Finding(
            "hypervisor-speed",
            Verdict.WARNING,
            f"Machines are emulated there: {proved.reason}; {proved.factor:g} times the reference machine's time.",
            "All works, slower.",
        )
