"""The web application: both consoles, the API and the public side, of one box."""

from __future__ import annotations

from flask import Flask, Response, make_response, request
from markupsafe import escape

from . import (
    api,
    box_pages,
    clients,
    command,
    config_api,
    failover_pages,
    net_pages,
    peer_api,
    reporting,
    site_pages,
    software_pages,
    update_pages,
)
from .box import read_hardware
from .core import Appliance
from .identity import FOLLOW
from .web import Console, add_error_answers

APPLIANCE_PAGES = (
    *box_pages.FIRST,
    *net_pages.NETWORKING,
    *net_pages.SECURITY,
    *box_pages.SECURITY,
    *update_pages.OWN,
    *box_pages.SUPPORT,
    *update_pages.UNDER_SUPPORT,
    *update_pages.HIDDEN,
)
LOGIN_PAGES = (
    *site_pages.FIRST,
    *software_pages.ENTRIES,
    *site_pages.SECURITY,
    *failover_pages.ENTRIES,
    *site_pages.MANAGEMENT,
    *site_pages.REST,
)


def create_application(box: Appliance) -> Flask:
    """The application of a box that has its factory state."""
    app = Flask("appliance", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 512 * 1024 * 1024
    consoles = (Console("appliance", box, APPLIANCE_PAGES), Console("login", box, LOGIN_PAGES))
    for console in consoles:
        _add_console(app, console)
    app.extensions[FOLLOW] = lambda: _follow(box, consoles)
    doors = api.Api(box)
    api.add_routes(app, doors)
    command.add_routes(app, doors)
    config_api.add_routes(app, doors)
    reporting.add_routes(app, doors)
    clients.add_routes(app, box)
    peer_api.add_routes(app, box)
    add_error_answers(app, box)
    app.add_url_rule("/", "portal", lambda: _portal(box))
    app.after_request(_drop_connection)
    return app


def _follow(box: Appliance, consoles: tuple[Console, ...]) -> None:
    """Take up the identity that the box has now: all that is kept in memory of it. To build the application anew takes a copy too long."""
    box.hardware = read_hardware(box.box)
    for console in consoles:
        console.take_names()


def _add_console(app: Flask, console: Console) -> None:
    methods = ["GET", "POST"]
    for path in (f"/{console.name}", f"/{console.name}/", f"/{console.name}.ns", f"/{console.name}/login.ns"):
        app.add_url_rule(path, f"{console.name}:{path}", console.answer, methods=methods, defaults={"slug": ""})
    app.add_url_rule(f"/{console.name}/<slug>", console.name, console.answer, methods=methods)


def _portal(box: Appliance) -> Response:
    """The public portal: whose site this is, for whoever comes without a login."""
    box.failover.verify_serving()
    name = escape(box.store.site.setting("site_name") or box.hostname)
    company = escape(box.store.site.setting("company"))
    head = f"<head><meta charset='utf-8'><title>{name}</title></head>"
    return make_response(f"<!DOCTYPE html>\n<html>{head}<body><h1>{name}</h1><p>{company}</p></body></html>\n")


def _drop_connection(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.path.startswith("/api/"):
        response.headers["Connection"] = "close"
    return response
