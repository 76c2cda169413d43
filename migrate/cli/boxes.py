"""``probe`` and ``doctor``, and the rooms that have commands of their own."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from migrate.cli.options import AsJson
from migrate.cli.say import show, show_json


def register(app: typer.Typer) -> None:
    """Mount this module's commands, and the apps of the other rooms."""
    import certs.cli
    import images.cli

    app.command("probe")(probe)
    app.command("doctor")(images.cli.doctor)
    app.add_typer(certs.cli.app, name="certs")
    app.add_typer(images.cli.images_app, name="images")
    app.add_typer(images.cli.lab_app, name="lab")


def probe(
    url: Annotated[str, typer.Argument(help="https://HOST[:PORT] of a box.")],
    pin: Annotated[
        str, typer.Option(help="SHA-256 of the key it must serve; without it the key is shown and not trusted with a password.")
    ] = "",
    user: Annotated[str, typer.Option(help="User for both consoles; without it only the pages before login are looked at.")] = "",
    site_password: Annotated[str, typer.Option(help="Reference to the password for /login (env:…, file:…, keyring:…, prompt).")] = "",
    appliance_password: Annotated[str, typer.Option(help="Reference to the password for /appliance.")] = "",
    language: Annotated[str, typer.Option(help="Language of its pages, such as en or es.")] = "",
    as_json: AsJson = False,
) -> None:
    """Tell which pages and words of the driver exist on a box; change nothing. Exit 4 when one that is needed is missing."""
    from migrate.wiring.probing import probe_box

    result = probe_box(url, pin=pin, user=user, site_password=site_password, appliance_password=appliance_password, language=language)
    if as_json:
        show_json(result.to_json())
    else:
        show(result.to_text())
    sys.exit(0 if result.good else 4)
