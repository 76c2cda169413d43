"""``boxshift images …`` and ``boxshift doctor``: read what was typed, call the room, print what came back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from images.import_cli import describe_image, register, render_line
from images.lab_cli import DryRun, Json, Lines, lab_app
from kit.errors import RefusedError

__all__ = ["doctor", "images_app", "lab_app"]

if TYPE_CHECKING:
    from images.store import Image

images_app = typer.Typer(no_args_is_help=True, help="Disk images: build, import, look at, give away.")


@images_app.command("build")
def build_image(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or debian-minimal, which ships; left out: the reference appliance.")
    ] = None,
    *,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Build an image from a recipe; where nothing changed, find it."""
    from images.build import build
    from images.home import find_home
    from images.recipe import find_recipe, read_recipe
    from images.reference_image import ensure_reference_image, read_reference_recipe

    if dry_run:
        asked = read_recipe(find_recipe(recipe)) if recipe else read_reference_recipe()
        typer.echo(f"Would build {asked.name}: {asked.suite}, {len(asked.packages)} packages, kernel {asked.kernel.package}.")
        return
    home = find_home()
    image = build(read_recipe(find_recipe(recipe)), home, progress=Lines()) if recipe else ensure_reference_image(home, progress=Lines())
    _print_images([image], as_json=as_json)


@images_app.command("list")
def list_images(*, as_json: Json = False) -> None:
    """List the stored images, the newest first."""
    from images.home import find_home
    from images.store import Store

    _print_images(Store(find_home()).list_images(), as_json=as_json)


register(images_app)


def doctor(*, as_json: Json = False) -> None:
    """Look for what would go wrong on this computer and on the hypervisor in use, and say what to do."""
    from images.doctor import Verdict, check_computer
    from images.doctor_pool import check_hypervisor
    from images.home import find_home
    from images.lab import make_forwards

    home = find_home()
    findings = [*check_computer(home, forwards=(*make_forwards(11), *make_forwards(12))), *check_hypervisor(home)]
    _print_findings(
        [{"code": one.code, "verdict": one.verdict.value, "sentence": one.sentence, "do": one.do} for one in findings], as_json=as_json
    )
    problems = sum(one.verdict is Verdict.PROBLEM for one in findings)
    if problems:
        raise RefusedError(
            f"The doctor found {problems} problem{'s' if problems > 1 else ''}.", hint="Do what stands beside each, then run it again."
        )


def _print_images(images: Iterable[Image], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([describe_image(one) for one in images], indent=1))
        return
    for one in images:
        typer.echo(render_line(one))


def _print_findings(rows: list[dict[str, str]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['verdict']:>14}  {row['sentence']}" + (f"\n{'':>16}{row['do']}" if row["do"] else ""))
