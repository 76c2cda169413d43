"""``boxshift lab …``: disposable appliances. Reads what was typed, calls the room, prints what came back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kit.errors import UsageError

lab_app = typer.Typer(no_args_is_help=True, help="Disposable appliances, here or on another hypervisor (BOXSHIFT_LIBVIRT_URI).")

if TYPE_CHECKING:
    from images.lab import LabBox
    from images.ready_page import ReadyPage
    from images.spec import MachineSpec

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Ttl = Annotated[str, typer.Option(help="How long they may stay, such as 30m, 4h or 2d; `lab reap` then removes them.")]
Cold = Annotated[bool, typer.Option("--cold", help="Boot them, do not clone.")]
Network = Annotated[str, typer.Option(help="A network of the hypervisor's to be on, with an address from its DHCP.")]
Bridge = Annotated[str, typer.Option(help="A bridge of the hypervisor's to be on.")]


class Lines:
    """Progress as lines on standard error, each label once."""

    def __init__(self) -> None:
        self._last = ""

    def update(self, label: str, done: float | None = None, total: float | None = None) -> None:
        """Print a label that differs from the one before."""
        if label != self._last:
            self._last = label
            typer.echo(f"  {label}" + (f" ({done:g} of {total:g})" if done is not None and total is not None else ""), err=True)


@lab_app.command("up")
def lab_up(
    image: Annotated[str | None, typer.Argument(help="Name or digest; left out: the reference appliance, built where needed.")] = None,
    *,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=64, help="How many.")] = 1,
    ttl: Ttl = "never",
    cold: Cold = False,
    ready: Annotated[
        str, typer.Option(help="What shows that it is ready, such as tls, https:8443/login or http/status; left out: as its image has it.")
    ] = "",
    ready_status: Annotated[int, typer.Option(help="The HTTP status that counts; 0: any below 500.")] = 0,
    ready_text: Annotated[str, typer.Option(help="A text that must stand in that page.")] = "",
    network: Network = "",
    bridge: Bridge = "",
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Bring up disposable appliances: clones of a saved machine, each with an identity of its own, ready when their HTTPS answers."""
    from images.lab import ensure_lab, find_image, parse_ttl, plan_lab, reserve_lab
    from images.machine import open_machines
    from images.uplink import find_uplink

    seconds, page, uplink = parse_ttl(ttl), _find_page(ready, ready_status, ready_text), find_uplink(network, bridge)
    with open_machines(progress=Lines()) as machines:
        machines.verify_way(uplink)
        found = find_image(machines, image, progress=Lines())
        if dry_run:
            _print_planned(plan_lab(machines, found, count, ready=page, uplink=uplink), as_json=as_json)
            return
        specs = reserve_lab(machines, found, count, ttl=seconds, ready=page, uplink=uplink)
        boxes = ensure_lab(machines, specs, cold=cold, progress=Lines())
        _print_rows([dataclasses.asdict(box) for box in boxes], as_json=as_json)


@lab_app.command("pair")
def lab_pair(
    image: Annotated[str | None, typer.Argument(help="Name or digest; left out: the reference appliance, built where needed.")] = None,
    *,
    ttl: Ttl = "never",
    cold: Cold = False,
    network: Network = "",
    bridge: Bridge = "",
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Bring up two appliances on a private segment of their own, each with an address there and proved to reach the other."""
    from images.lab import find_image, parse_ttl
    from images.lab_group import ensure_pair, plan_pair
    from images.machine import open_machines
    from images.uplink import find_uplink

    seconds, uplink = parse_ttl(ttl), find_uplink(network, bridge)
    with open_machines(progress=Lines()) as machines:
        machines.verify_way(uplink)
        found = find_image(machines, image, progress=Lines())
        if dry_run:
            _print_planned(plan_pair(machines, found, uplink=uplink), as_json=as_json)
            return
        boxes = ensure_pair(machines, found, ttl=seconds, cold=cold, uplink=uplink, progress=Lines())
        _print_rows([dataclasses.asdict(box) for box in boxes], as_json=as_json)


@lab_app.command("topology")
def lab_topology(
    file: Annotated[Path, typer.Argument(help="The YAML file.", exists=True, dir_okay=False)],
    *,
    ttl: Ttl = "never",
    cold: Cold = False,
    network: Network = "",
    bridge: Bridge = "",
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Bring up the small network of appliances that a file describes: all of it, or nothing.

    The file names segments, each with its network or none, and boxes, each with image, count and its segments with its address there.
    """
    from images.lab import parse_ttl
    from images.lab_group import ensure_topology, find_images, plan_topology
    from images.machine import open_machines
    from images.topology import read_topology
    from images.uplink import find_uplink

    seconds, topology, uplink = parse_ttl(ttl), read_topology(file), find_uplink(network, bridge)
    with open_machines(progress=Lines()) as machines:
        machines.verify_way(uplink)
        if dry_run:
            found = find_images(machines, topology, progress=Lines())
            _print_planned(plan_topology(machines, topology, found, uplink=uplink), as_json=as_json)
            return
        boxes = ensure_topology(machines, topology, ttl=seconds, cold=cold, uplink=uplink, progress=Lines())
        _print_rows([dataclasses.asdict(box) for box in boxes], as_json=as_json)


@lab_app.command("list")
def lab_list(*, as_json: Json = False) -> None:
    """List the disposable appliances."""
    from images.lab import list_lab
    from images.machine import open_machines

    with open_machines(progress=Lines()) as machines:
        _print_rows([dataclasses.asdict(box) for box in list_lab(machines)], as_json=as_json)


@lab_app.command("ssh")
def lab_ssh(name: str) -> None:
    """Open a shell on an appliance."""
    from images.lab import ensure_ssh
    from images.machine import open_machines

    with open_machines(progress=Lines()) as machines:
        argv = ensure_ssh(machines, name)
    os.execvp(argv[0], argv)  # noqa: S606 - this process becomes ssh, with its terminal


@lab_app.command("console")
def lab_console(name: str, *, lines: Annotated[int, typer.Option(min=1, max=500)] = 40) -> None:
    """Print the last lines of an appliance's serial console."""
    from images.machine import open_machines

    with open_machines(progress=Lines()) as machines:
        typer.echo("\n".join(machines.read_console(name, lines=lines)))


@lab_app.command("logs")
def lab_logs(name: str, *, lines: Annotated[int, typer.Option(min=1, max=5000)] = 100) -> None:
    """Print the last lines of an appliance's system log, read through its guest agent; where none runs, of its serial console."""
    from images.lab import read_log
    from images.machine import open_machines

    with open_machines(progress=Lines()) as machines:
        typer.echo(read_log(machines, name, lines=lines), nl=False)


@lab_app.command("stop")
def lab_stop(name: str, *, dry_run: DryRun = False) -> None:
    """Shut an appliance down; its disk stays."""
    from images.lab import read_lab
    from images.machine import open_machines

    with open_machines(progress=Lines()) as machines:
        box = read_lab(machines, name)
        if not dry_run:
            machines.ensure_stopped(box.name)
        typer.echo(f"{'Would stop' if dry_run else 'Stopped'} {name}.")


@lab_app.command("start")
def lab_start(name: str, *, as_json: Json = False, dry_run: DryRun = False) -> None:
    """Boot an appliance that was stopped, and wait until its HTTPS answers."""
    from images.lab import read_lab, start_lab
    from images.machine import open_machines

    with open_machines(progress=Lines()) as machines:
        box = read_lab(machines, name) if dry_run else start_lab(machines, name, progress=Lines())
        _print_rows([dataclasses.asdict(box)], as_json=as_json)


@lab_app.command("extend")
def lab_extend(
    name: str,
    *,
    ttl: Annotated[str, typer.Option(help="How long it may stay from now on, such as 4h, or never.")],
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Change when an appliance's time is over."""
    from images.lab import extend_lab, parse_ttl, read_lab
    from images.machine import open_machines

    seconds = parse_ttl(ttl)
    with open_machines(progress=Lines()) as machines:
        box = read_lab(machines, name) if dry_run else extend_lab(machines, name, seconds)
        _print_rows([dataclasses.asdict(box)], as_json=as_json)


@lab_app.command("snapshot")
def lab_snapshot(name: str, label: str, *, as_json: Json = False, dry_run: DryRun = False) -> None:
    """Keep a running appliance as it is now, memory and disk, to go back to."""
    from images.lab import read_lab
    from images.machine import open_machines
    from images.snapshot import take_snapshot

    with open_machines(progress=Lines()) as machines:
        box = read_lab(machines, name)
        rows = [{"machine": box.name, "label": label}] if dry_run else [dataclasses.asdict(take_snapshot(machines, name, label))]
        _print_rows(rows, as_json=as_json)


@lab_app.command("restore")
def lab_restore(name: str, label: str, *, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Take an appliance back to a snapshot; what happened on it since is lost."""
    from images.lab import read_lab
    from images.machine import open_machines
    from images.snapshot import restore_snapshot

    with open_machines(progress=Lines()) as machines:
        read_lab(machines, name)
        if dry_run:
            typer.echo(f"Would take {name} back to {label}.")
            return
        if not yes and not typer.confirm(f"Take {name} back to {label}, and lose what happened since?"):
            raise UsageError("Nothing was changed.")
        fresh = restore_snapshot(machines, name, label)
        typer.echo(f"{name} is back at {label}." + ("" if fresh else " Its clock and its randomness are those of then."))


@lab_app.command("reap")
def lab_reap(*, as_json: Json = False, dry_run: DryRun = False) -> None:
    """Remove what of ours is over its time, or was left by a process that died. Nothing that boxshift did not make is touched."""
    from images.machine import open_machines
    from images.reap import plan_reap, reap

    with open_machines(progress=Lines()) as machines:
        found = plan_reap(machines) if dry_run else reap(machines)
        if as_json:
            _print_rows([{"kind": one.kind.value, "key": one.key, "reason": one.reason} for one in found], as_json=True)
            return
        for one in found:
            typer.echo(f"{'Would remove' if dry_run else 'Removed'} the {one.kind.value} {one.key}: {one.reason}.")
        if not found:
            typer.echo("Nothing is over.")


@lab_app.command("down")
def lab_down(
    names: Annotated[list[str] | None, typer.Argument(help="Which: names of appliances, pairs or topologies.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All disposable appliances.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Remove disposable appliances with their disks."""
    from images.lab import list_lab
    from images.machine import open_machines

    with open_machines(progress=Lines()) as machines:
        for name in _chosen(list_lab(machines), names or [], everything=everything, yes=yes or dry_run):
            if not dry_run:
                machines.ensure_removed(name)
            typer.echo(f"{'Would remove' if dry_run else 'Removed'} {name}.")


def _find_page(word: str, status: int, text: str) -> ReadyPage | None:
    from images.ready_page import parse_ready_page

    if not word and (status or text):
        raise UsageError("--ready-status and --ready-text say more of a page, and --ready names it.", hint="--ready https/status")
    return parse_ready_page(word, status=status or None, text=text) if word else None


def _chosen(boxes: Sequence[LabBox], names: list[str], *, everything: bool, yes: bool) -> list[str]:
    if everything == bool(names):
        raise UsageError("Say which appliances to remove, or --all.", hint="`boxshift lab list` shows them.")
    unknown = [name for name in names if not any(name in (box.name, box.group) for box in boxes)]
    if unknown:
        raise UsageError(f"No disposable appliance is named {', '.join(unknown)}.", hint="`boxshift lab list` shows them.")
    chosen = [box.name for box in boxes if everything or box.name in names or (box.group and box.group in names)]
    if chosen and not yes and not typer.confirm(f"Remove {', '.join(chosen)} with their disks?"):
        raise UsageError("Nothing was removed.")
    return chosen


def _print_planned(specs: Sequence[MachineSpec], *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    for spec in specs:
        cards = [{"name": card.segment, "address": card.address} for card in spec.segments if card.segment]
        rows.append({"name": spec.name, "address": spec.forwards[0].host if spec.forwards else "", "segments": cards})
    _print_rows(rows, as_json=as_json)


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo("  ".join(_show(key, value) for key, value in row.items() if value not in (None, "", [], ())))


def _show(key: str, value: Any) -> str:
    if key == "segments":
        return " ".join(f"{one['name']}:{one['address'] or 'no address'}" for one in value)
    return str(value)[:16] if key in ("digest", "image", "uuid") else str(value)
