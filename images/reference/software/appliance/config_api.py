"""The configuration API, JSON, read side: ``/api/config/v1/…`` with the documented paging, errors and headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, jsonify, make_response, request

from .api import Api, Turned, limited
from .clients import is_connected
from .core import Appliance

PREFIX = "/api/config/v1"
FEWEST, MOST = 5, 100


@dataclass(frozen=True)
class Collection:
    """One kind of thing: how its rows are read, and how one is shown. ``filters``: query parameters that narrow it."""

    name: str
    sql: str
    show: Callable[[Appliance, Any], dict[str, Any]]
    filters: tuple[str, ...] = ()


def _show_jump_client(box: Appliance, row: Any) -> dict[str, Any]:
    connected = is_connected(box, row["client"])
    return {
        "id": row["id"],
        "client": row["client"],
        "name": row["name"],
        "hostname": row["hostname"],
        "jump_group_name": row["jump_group"],
        "comments": row["comments"],
        "version": row["version"],
        "connected": connected,
        "needs_update": row["version"] != box.site.version,
        "is_lost": False,
        "last_connect_timestamp": _moment(row["last_connect"]),
        "last_disconnect_timestamp": _moment(row["last_disconnect"]),
        "unavailable_reason": None if connected else "disconnected",
    }


def _moment(seconds: float | None) -> str | None:
    import time

    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def _show_user(_: Appliance, row: Any) -> dict[str, Any]:
    return {
        "id": row["rowid"],
        "username": row["name"],
        "public_display_name": row["display"],
        "enabled": bool(row["enabled"]),
        "preferred_language": row["language"] or None,
    }


def _show_api_account(_: Appliance, row: Any) -> dict[str, Any]:
    permissions: dict[str, Any] = json.loads(row["permissions"])
    return {"id": row["rowid"], "name": row["name"], "client_id": row["client_id"], "enabled": bool(row["enabled"])} | permissions


def _show_vault_account(_: Appliance, row: Any) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"], "username": row["username"], "type": "username_password"}


COLLECTIONS = (
    Collection("jump-client", "select * from jump_client order by id", _show_jump_client, ("name", "hostname", "jump_group_name")),
    Collection("user", "select rowid, * from account order by rowid", _show_user, ("username",)),
    Collection("api-account", "select rowid, * from api_account order by rowid", _show_api_account, ("name",)),
    Collection("vault/account", "select * from vault_account order by id", _show_vault_account, ("name",)),
)


class Configuration:
    """Answers lists and single items."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def _rows(self, collection: Collection) -> list[dict[str, Any]]:
        box = self._api.box
        rows = [collection.show(box, row) for row in box.store.site.rows(collection.sql)]
        for name in collection.filters:
            if name in request.args:
                rows = [row for row in rows if str(row[name]) == request.args[name]]
        return rows

    def list(self, collection: Collection) -> Response:
        """A page of a collection."""
        _, left = self._api.admit("perm_configuration")
        _verify_known(("per_page", "current_page", *collection.filters))
        size, page = _number("per_page", MOST, FEWEST, MOST), _number("current_page", 1, 1, 10**9)
        rows = self._rows(collection)
        last = max(1, -(-len(rows) // size))
        response = jsonify(rows[(page - 1) * size : page * size])
        headers = {"Current-Page": page, "Last-Page": last, "Per-Page": size, "Total": len(rows)}
        for name, value in headers.items():
            response.headers[f"X-BT-Pagination-{name}"] = str(value)
        response.headers["Link"] = ", ".join(_links(collection.name, page, last, size))
        return limited(response, left)

    def one(self, collection: Collection, number: str) -> Response:
        """One item by its number."""
        _, left = self._api.admit("perm_configuration")
        _verify_known(())
        found = next((row for row in self._rows(collection) if str(row["id"]) == number), None)
        if found is None:
            raise Turned(404, {"message": "Not Found"})
        return limited(jsonify(found), left)

    def description(self) -> Response:
        """``GET /api/config/v1/openapi.yaml``."""
        self._api.admit("perm_configuration")
        answer = "responses: {'200': {description: A page}}"
        paths = "".join(f"  /{one.name}:\n    get: {{summary: List {one.name}, {answer}}}\n" for one in COLLECTIONS)
        response = make_response(f"openapi: 3.0.3\ninfo: {{title: Configuration API, version: '1.10'}}\npaths:\n{paths}")
        response.headers["Content-Type"] = "application/yaml"
        return response


def _verify_known(names: tuple[str, ...]) -> None:
    if any(name not in names for name in request.args):
        raise Turned(401, {"message": "An unrecognized query parameter was given."})


def _number(name: str, default: int, least: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if not text.isdigit() or not least <= int(text) <= most:
        raise Turned(422, {"message": "The given data was invalid.", "errors": {name: [f"must be between {least} and {most}"]}})
    return int(text)


def _links(name: str, page: int, last: int, size: int) -> list[str]:
    pages = {"first": 1, "last": last} | ({"prev": page - 1} if page > 1 else {}) | ({"next": page + 1} if page < last else {})
    return [f'<{request.host_url.rstrip("/")}{PREFIX}/{name}?per_page={size}&current_page={at}>; rel="{rel}"' for rel, at in pages.items()]


def add_routes(app: Flask, api: Api) -> None:
    """Hang its addresses on the application."""
    configuration = Configuration(api)
    for collection in COLLECTIONS:
        path = f"{PREFIX}/{collection.name}"
        app.add_url_rule(path, f"config:{path}", configuration.list, methods=["GET"], defaults={"collection": collection})
        app.add_url_rule(f"{path}/<number>", f"config:{path}:one", configuration.one, methods=["GET"], defaults={"collection": collection})
    app.add_url_rule(f"{PREFIX}/openapi.yaml", "config:openapi", configuration.description, methods=["GET"])
