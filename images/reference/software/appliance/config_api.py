"""The configuration API, JSON, read side: ``/api/config/v1/…`` with the documented paging, errors and headers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, jsonify, make_response, request

from .api import Api, Turned, limited
from .core import Appliance
from .presence import Presence, read_presence

PREFIX = "/api/config/v1"
FEWEST, MOST = 5, 100


@dataclass(frozen=True)
class Collection:
    """One kind of thing: its table and the column that numbers it, and how some rows are shown.

    ``filters``: query parameters that narrow it, each with its column.
    """

    name: str
    table: str
    number: str
    show: Callable[[Appliance, Sequence[Any]], list[dict[str, Any]]]
    filters: Mapping[str, str]


def _show_jump_clients(box: Appliance, rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [_show_jump_client(box, row, presence) for row, presence in zip(rows, read_presence(box, rows), strict=True)]


def _show_jump_client(box: Appliance, row: Any, presence: Presence) -> dict[str, Any]:
    return {
        "id": row["id"],
        "client": row["client"],
        "name": row["name"],
        "hostname": row["hostname"],
        "jump_group_name": row["jump_group"],
        "comments": row["comments"],
        "version": row["version"],
        "connected": presence.connected,
        "needs_update": row["version"] != box.site.version,
        "is_lost": presence.lost,
        "last_connect_timestamp": _moment(row["last_connect"]),
        "last_disconnect_timestamp": _moment(presence.left),
        "unavailable_reason": None if presence.connected else "disconnected",
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))


def _show_users(_: Appliance, rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": row["rowid"],
            "username": row["name"],
            "public_display_name": row["display"],
            "enabled": bool(row["enabled"]),
            "preferred_language": row["language"] or None,
        }
        for row in rows
    ]


def _show_api_accounts(_: Appliance, rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"id": row["rowid"], "name": row["name"], "client_id": row["client_id"], "enabled": bool(row["enabled"])}
        | json.loads(row["permissions"])
        for row in rows
    ]


def _show_vault_accounts(_: Appliance, rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"id": row["id"], "name": row["name"], "username": row["username"], "type": "username_password"} for row in rows]


COLLECTIONS = (
    Collection(
        "jump-client",
        "jump_client",
        "id",
        _show_jump_clients,
        {"name": "name", "hostname": "hostname", "jump_group_name": "jump_group"},
    ),
    Collection("user", "account", "rowid", _show_users, {"username": "name"}),
    Collection("api-account", "api_account", "rowid", _show_api_accounts, {"name": "name"}),
    Collection("vault/account", "vault_account", "id", _show_vault_accounts, {"name": "name"}),
)


class Configuration:
    """Answers lists and single items."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def _find(self, collection: Collection, wanted: Mapping[str, object], page: tuple[int, int]) -> tuple[int, list[dict[str, Any]]]:
        """How many rows have all ``wanted`` (column -> value), and some of them as they are shown: ``page`` is how many, after how many."""
        box = self._api.box
        where = " and ".join(f"{column} = ?" for column in wanted) or "1"
        total = box.store.site.value(f"select count(*) from {collection.table} where {where}", *wanted.values())  # noqa: S608 - our names
        sql = f"select rowid, * from {collection.table} where {where} order by {collection.number} limit ? offset ?"  # noqa: S608 - our names
        return int(total), collection.show(box, box.store.site.rows(sql, *wanted.values(), *page))

    def list(self, collection: Collection) -> Response:
        """A page of a collection."""
        _, left = self._api.admit("perm_configuration")
        _verify_known(("per_page", "current_page", *collection.filters))
        size, page = _number("per_page", MOST, FEWEST, MOST), _number("current_page", 1, 1, 10**9)
        wanted = {column: request.args[name] for name, column in collection.filters.items() if name in request.args}
        total, rows = self._find(collection, wanted, (size, (page - 1) * size))
        last = max(1, -(-total // size))
        response = jsonify(rows)
        headers = {"Current-Page": page, "Last-Page": last, "Per-Page": size, "Total": total}
        for name, value in headers.items():
            response.headers[f"X-BT-Pagination-{name}"] = str(value)
        response.headers["Link"] = ", ".join(_links(collection.name, page, last, size))
        return limited(response, left)

    def one(self, collection: Collection, number: str) -> Response:
        """One item by its number."""
        _, left = self._api.admit("perm_configuration")
        _verify_known(())
        _, rows = self._find(collection, {collection.number: number}, (1, 0))
        if not rows or str(rows[0]["id"]) != number:
            raise Turned(404, {"message": "Not Found"})
        return limited(jsonify(rows[0]), left)

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
