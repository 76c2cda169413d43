"""``boxshift packages``: software for boxes that cannot go out. Key out of the box, packages onto a disk, and into the box by its plan."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from migrate.cli.options import AsJson
from migrate.cli.say import console, show, show_json

app = typer.Typer(name="packages", help="Packages for a closed network.", no_args_is_help=True, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(help="The folder that travels.")]
Server = Annotated[str, typer.Option(help="Address of the vendor's update server, https://…")]
KeyRef = Annotated[str, typer.Option(help="Reference to the download key: env:NAME, file:PATH, keyring:SERVICE/USER or prompt.")]
Roots = Annotated[Path | None, typer.Option(help="PEM file with roots to trust instead of the system's.")]


@app.command("key")
def key(
    plan: Annotated[Path, typer.Argument(help="The plan file of an upgrade.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the key; only you can read it.")] = Path("download.key"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read the box's Appliance Download Key into a file. It is valid for 2,400 minutes."""
    from migrate.wiring.transfers import write_key

    if dry_run:
        show(f"The download key of the box in {plan} would be written to {output}.")
        return
    written = write_key(plan, output)
    until = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(written.until))
    if as_json:
        show_json({"key": str(written.path), "valid_until": written.until})
    else:
        show(f"{written.path}: valid until {until}.")


@app.command("fetch")
def fetch(
    folder: Folder,
    server: Server,
    key: KeyRef,
    roots: Roots = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what is on offer, download nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download every package that the key's box can get. On a machine that may go out; no plan and no box are needed there."""
    from migrate.cli.demonstration import Lines
    from migrate.wiring import transfers

    if dry_run:
        files = [goods.file for goods in transfers.read_goods(server, key, roots)]
        show_json({"on_offer": files}) if as_json else show("\n".join(files) or "Nothing is on offer.")
        return
    found = transfers.fetch(folder, server, key, roots, Lines("packages"))
    if as_json:
        show_json({"folder": str(folder), "new": found.new, **found.transfer.model_dump(mode="json")})
        return
    for entry in found.transfer.packages:
        show(f"{entry.file}  {entry.size} bytes  sha256 {entry.sha256}")
    console().print(
        f"{len(found.new)} package(s) came now. A package is offered only once: keep {folder} until it is installed.", markup=False
    )


@app.command("verify")
def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Compare every package with the folder's list, and show them in the order of installing."""
    from migrate.wiring.transfers import verify_folder

    transfer = verify_folder(folder)
    if as_json:
        show_json(transfer.model_dump(mode="json"))
        return
    for entry in transfer.packages:
        show(f"{entry.file}  {entry.kind.value} {entry.version}  {'as fetched' if entry.sha256 else 'no digest known'}")
