"""``boxshift images import | export | show | verify | remove | gc``: read what was typed, call the room, print what came back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from images.lab_cli import DryRun, Json
from kit.errors import UsageError

if TYPE_CHECKING:
    from images.hardware import DeclaredProperty, MachineHardware
    from images.import_request import ImportReport, ImportRequest, Person
    from images.ovf.model import Deployment
    from images.store import Image
    from kit.findings import Finding

GIB = 1 << 30
STEP = 10  # per cent between two lines where nobody sits at a terminal

Source = Annotated[
    str, typer.Argument(help="OVA, OVF folder or .ovf, VMDK, VHD, VHDX, qcow2, raw, ISO, also as .xz, .gz, .zst; or an https address.")
]
Name = Annotated[str, typer.Option("--name", help="What it is called in the store; left out: like the source.")]
CheckSum = Annotated[str, typer.Option("--checksum", help="sha256:HEX or sha512:HEX of the source; needed for an address.")]
Trust = Annotated[
    list[Path] | None, typer.Option("--trust", help="PEM file of an authority whose signatures are trusted. May be repeated.")
]
Signed = Annotated[bool, typer.Option("--require-signature", help="Refuse a bundle that is not signed by someone trusted.")]
Size = Annotated[str, typer.Option("--deployment", help="The size of the appliance, by its id; left out: asked, or the usual one.")]
System = Annotated[str, typer.Option("--system", help="Only this machine of a bundle with several.")]
Answers = Annotated[
    list[str] | None, typer.Option("--property", help="KEY=VALUE; for a password KEY=env:NAME or file:PATH. May be repeated.")
]
Accept = Annotated[bool, typer.Option("--accept-eula", help="The licence was read and is accepted.")]
Raw = Annotated[bool, typer.Option("--raw", help="A file without any mark is a raw disk.")]
FirmwareWord = Annotated[str, typer.Option("--firmware", help="bios or uefi, for a disk that comes without a description.")]
Authority = Annotated[Path | None, typer.Option("--ca", help="PEM file of the authority of a server that is not publicly trusted.")]
MaxSize = Annotated[int, typer.Option("--max-size", min=1, help="The largest disk that is taken, in GiB.")]


class TimeLeft:
    """Progress with the time left: one line that changes at a terminal, a line every ten per cent elsewhere; on standard error."""

    def __init__(self, *, live: bool | None = None) -> None:
        self._live = sys.stderr.isatty() if live is None else live
        self._label, self._begun, self._shown = "", 0.0, -1.0

    def update(self, label: str, done: float | None = None, total: float | None = None) -> None:
        """Show how far it is."""
        now = time.monotonic()
        if label != self._label:
            self._finish()
            self._label, self._begun, self._shown = label, now, -1.0
        part = 100 * done / total if done is not None and total else 0.0
        if self._live:
            if now - self._shown > 0.2 or part >= 100:
                self._shown = now
                typer.echo(f"\r\x1b[K  {label}{self._words(part, now)}", err=True, nl=False)
        elif self._shown < 0 or part - self._shown >= STEP:
            self._shown = part
            typer.echo(f"  {label}{self._words(part, now)}", err=True)

    def close(self) -> None:
        """End the line."""
        self._finish()

    def _finish(self) -> None:
        if self._live and self._label:
            typer.echo("", err=True)
        self._label = ""

    def _words(self, part: float, now: float) -> str:
        if part <= 0:
            return ""
        left = (now - self._begun) * (100 - part) / part
        return f" {part:.0f} %" + (f", {_duration(left)} left" if part < 100 and now - self._begun > 2 else "")


class Terminal:
    """The person at the terminal; questions go to standard error."""

    def accept(self, eula: str) -> bool:
        """Show the licence and ask."""
        typer.echo(_printable(eula), err=True)
        return typer.confirm("Is this licence accepted?", err=True)

    def choose(self, deployments: Sequence[Deployment], usual: Deployment) -> str:
        """Show the sizes and ask for one."""
        for one in deployments:
            typer.echo(f"  {one.id:<16} {_printable(one.label)}  {_printable(one.description)[:200]}", err=True)
        return str(typer.prompt("Which size", default=usual.id, err=True))

    def answer(self, asked: DeclaredProperty) -> str | None:
        """Ask for one value; nothing typed leaves it open."""
        from kit.references import FORMS

        hint = f" (a password: {FORMS})" if asked.password else f" ({asked.kind})"
        label = _printable(asked.label or asked.key)
        said = str(typer.prompt(f"{label}{hint}", default="", show_default=False, err=True))
        return said or None


def register(app: typer.Typer) -> None:
    """Hang the commands onto ``boxshift images``."""
    app.command("import")(import_command)
    app.command("show")(show_command)
    app.command("verify")(verify_command)
    app.command("export")(export_command)
    app.command("remove")(remove_command)
    app.command("gc")(gc_command)


def import_command(
    source: Source,
    *,
    name: Name = "",
    checksum: CheckSum = "",
    deployment: Size = "",
    property_: Answers = None,
    accept_eula: Accept = False,
    system: System = "",
    trust: Trust = None,
    require_signature: Signed = False,
    ca: Authority = None,
    raw: Raw = False,
    firmware: FirmwareWord = "bios",
    max_size: MaxSize = 2048,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Bring an appliance's image into the store, after checking all of it. A dry run checks and shows, and stores nothing."""
    from images.disk_headers import Limits
    from images.home import find_home
    from images.import_image import import_image
    from images.import_request import ImportRequest
    from images.store import Store

    request = ImportRequest(
        source=source, name=name, checksum=checksum, anchors=tuple(trust or ()), must_be_signed=require_signature, deployment=deployment,
        system=system, answers=tuple(_pair(one) for one in property_ or ()), accept_eula=accept_eula, raw=raw, firmware=_firmware(firmware),
        ca=ca, limits=Limits(max_size * GIB), dry_run=dry_run,
    )  # fmt: skip
    shown = TimeLeft()
    try:
        report = import_image(request, Store(find_home()), person=_person(request), progress=shown)
    finally:
        shown.close()
    _print_import(report, as_json=as_json)


def show_command(image: str, *, as_json: Json = False) -> None:
    """Show one image with its hardware, after reading all of its files to see that they are what was stored."""
    from images.home import find_home
    from images.store import Store

    store = Store(find_home())
    found = store.read_image(image)
    store.verify(found, thorough=True)
    if as_json:
        typer.echo(json.dumps([describe_image(found)], indent=1))
        return
    typer.echo(render_line(found))
    if found.hardware is not None:
        typer.echo("\n".join(_render_hardware(found.hardware)))
    if found.origin is not None:
        words = ", ".join(
            word
            for word in (found.origin.source, f"manifest {found.origin.manifest}" if found.origin.manifest else "", found.origin.trust)
            if word
        )
        typer.echo(f"  from {words}")
        _print_findings(found.origin.findings)


def verify_command(
    images: Annotated[list[str] | None, typer.Argument(help="Names or digests; left out: all.")] = None, *, as_json: Json = False
) -> None:
    """Read images whole and compare them with what was stored."""
    from images.errors import AlteredImageError
    from images.home import find_home
    from images.store import Store

    store = Store(find_home())
    chosen = [store.read_image(one) for one in images] if images else list(store.list_images())
    rows, wrong = [], None
    for one in chosen:
        try:
            store.verify(one, thorough=True)
            rows.append({"name": one.name, "digest": one.digest, "whole": True, "sentence": "as it was stored"})
        except AlteredImageError as error:
            wrong = error
            rows.append({"name": one.name, "digest": one.digest, "whole": False, "sentence": error.sentence})
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        typer.echo("\n".join(f"{row['name']}  {str(row['digest'])[:12]}  {row['sentence']}" for row in rows) or "There is no image.")
    if wrong is not None:
        raise wrong


def export_command(
    image: str,
    target: Annotated[Path, typer.Argument(help="The file to write; its ending tells the format where --format does not.")],
    *,
    format_: Annotated[str, typer.Option("--format", help="qcow2, raw or ova.")] = "",
    disk: Annotated[str, typer.Option("--disk", help="Which disk, for qcow2 and raw.")] = "disk.qcow2",
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Write an image as qcow2, raw disk, or OVA with a manifest."""
    from images.export import export_image
    from images.home import find_home
    from images.store import Store

    chosen = _export_format(format_ or target.suffix.removeprefix("."))
    store = Store(find_home())
    found = store.read_image(image)
    if dry_run:
        typer.echo(f"Would write {found.name} ({found.digest[:12]}) to {target} as {chosen.value}.")
        return
    shown = TimeLeft()
    try:
        written = export_image(store, found, target, chosen, disk=disk, progress=shown)
    finally:
        shown.close()
    if as_json:
        typer.echo(
            json.dumps(
                {"path": str(written.path), "bytes": written.size, "sha256": written.digest, "findings": _rows(written.findings)}, indent=1
            )
        )
        return
    typer.echo(f"{written.path}  {written.size >> 20} MiB  sha256:{written.digest}")
    _print_findings(written.findings)


def remove_command(image: str, *, dry_run: DryRun = False) -> None:
    """Delete an image that nothing stands on."""
    from images.home import find_home
    from images.leftovers import remove_unused
    from images.store import Store

    home = find_home()
    store = Store(home)
    found = store.read_image(image)
    remove_unused(home, store, found, dry_run=dry_run)
    typer.echo(f"{'Would remove' if dry_run else 'Removed'} {found.name} ({found.digest[:12]}).")


def gc_command(*, as_json: Json = False, dry_run: DryRun = False) -> None:
    """Delete what imports and removals left that were cut off; images and what is being imported stay."""
    from images.home import find_home
    from images.leftovers import list_leftovers, remove_leftovers

    found = list_leftovers(find_home())
    if not dry_run:
        remove_leftovers(found)
    if as_json:
        typer.echo(
            json.dumps([{"path": str(one.path), "what": one.what, "bytes": one.size, "removed": not dry_run} for one in found], indent=1)
        )
        return
    for one in found:
        typer.echo(f"{'Would remove' if dry_run else 'Removed'} {one.path}: {one.what}, {one.size >> 20} MiB.")
    if not found:
        typer.echo("Nothing is left over.")


def describe_image(image: Image) -> dict[str, Any]:
    """An image as a JSON object."""
    row: dict[str, Any] = {
        "name": image.name, "digest": image.digest, "bytes": image.size, "created": int(image.created), "memory_mib": image.memory_mib,
        "cpus": image.cpus, "other_names": list(image.other_names),
    }  # fmt: skip
    if image.hardware is not None:
        row["hardware"] = _describe_hardware(image.hardware)
    if image.origin is not None:
        row["origin"] = asdict(image.origin)
    return row


def _describe_hardware(hardware: MachineHardware) -> dict[str, Any]:
    """Without passwords that a vendor put into its descriptor."""
    plain = (replace(one, default="***") if one.password and one.default else one for one in hardware.properties)
    return asdict(replace(hardware, properties=tuple(plain)))


def render_line(image: Image) -> str:
    """An image as a line."""
    return f"{image.name}  {image.digest[:12]}  {image.size >> 20} MiB  {datetime.fromtimestamp(image.created, UTC):%Y-%m-%d %H:%M} UTC"


def _person(request: ImportRequest) -> Person:
    from images.import_request import Nobody

    return Terminal() if sys.stdin.isatty() and not request.dry_run else Nobody()


def _pair(text: str) -> tuple[str, str]:
    key, mark, value = text.partition("=")
    if not mark or not key:
        raise UsageError("A property is given as KEY=VALUE.", hint="A password as KEY=env:NAME or KEY=file:PATH.")
    return key, value


def _firmware(word: str) -> Any:
    from images.hardware import Firmware

    if word not in {one.value for one in Firmware}:
        raise UsageError(f"{word!r} is no firmware.", hint="bios or uefi.")
    return Firmware(word)


def _export_format(word: str) -> Any:
    from images.export import ExportFormat

    plain = {"img": "raw"}.get(word.lower(), word.lower())
    if plain not in {one.value for one in ExportFormat}:
        raise UsageError(f"Images are not written as {word!r}.", hint="--format qcow2, raw or ova.")
    return ExportFormat(plain)


def _print_import(report: ImportReport, *, as_json: bool) -> None:
    if as_json:
        planned = [{"name": one.name, "hardware": _describe_hardware(one.hardware), "disks": list(one.disks)} for one in report.planned]
        told = {
            "images": [describe_image(one) for one in report.images], "planned": planned, "findings": _rows(report.findings),
            "manifest": report.manifest, "trust": report.trust, "signer": report.signer, "eulas": list(report.eulas),
        }  # fmt: skip
        typer.echo(json.dumps(told, indent=1))
        return
    if not report.images:
        for text in report.eulas:
            typer.echo(_printable(text))
        for one in report.planned:
            typer.echo(
                "\n".join([f"Would import {one.name}", *_render_hardware(one.hardware), *(f"  {_printable(text)}" for text in one.disks)])
            )
    for image in report.images:
        typer.echo(render_line(image))
    if report.trust:
        typer.echo(_printable(f"  manifest {report.manifest}, {report.trust}" + (f": {report.signer}" if report.signer else "")))
    _print_findings(report.findings)


def _render_hardware(one: MachineHardware) -> list[str]:
    firmware = one.firmware.value.upper() + (", Secure Boot" if one.secure_boot else "") + (", TPM" if one.tpm else "")
    lines = [
        f"  {firmware}, {one.sockets} x {one.cores} processors, {one.memory_mib} MiB"
        + (f", size {one.deployment}" if one.deployment else "")
    ]
    lines += [
        f"  {drive.bus.value} {drive.controller}:{drive.unit} {drive.kind.value} {drive.file or 'empty'}, {drive.size >> 20} MiB"
        for drive in one.drives
    ]
    lines += [f"  card {card.model} in {_printable(card.network) or 'no network'}" for card in one.cards]
    lines += [f"  property {one.key}: {_answer(one)}" for one in one.properties]
    return lines


def _answer(one: DeclaredProperty) -> str:
    if one.password:
        return one.reference or ("***" if one.default else "open")
    return _printable(one.answer) if one.answer is not None else "open" if one.is_open else "nothing"


def _print_findings(findings: Iterable[Finding]) -> None:
    for one in sorted(findings, key=lambda one: one.severity.rank):
        typer.echo(
            _printable(f"{one.severity.value:>10}  {one.sentence} ({one.code})") + (f"\n{'':>12}{one.hint}" if one.hint else ""), err=True
        )


def _rows(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [asdict(one) for one in findings]


def _printable(text: str) -> str:
    """Foreign text without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
