"""The command API, XML: ``/api/command`` with check_health, get_api_info, get_appliances and set_failover_role."""

from __future__ import annotations

import json
import time
from xml.etree import ElementTree as ET

from flask import Flask, Response, make_response, request

from .api import Api, Turned, limited
from .errors import Refused
from .pairs import Kind, Role

NAMESPACE = "https://www.beyondtrust.com/namespaces/API/command"
CHANGED = "Successfully changed role."
BEGUN = "Successfully started data sync. Role change will occur upon successful completion."
READ, CHANGE = ("read_only", "full_access"), ("full_access",)


class Command:
    """Answers actions. An action that fails answers 200 with an ``<error>`` element."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._box = api.box
        self._actions = {
            "check_health": (self._check_health, READ),
            "get_api_info": (self._api_info, READ),
            "get_appliances": (self._appliances, READ),
            "set_failover_role": (self._failover_role, CHANGE),
        }

    def answer(self) -> Response:
        """``GET`` or ``POST /api/command``."""
        if self._box.store.site.setting("xml_api") != "on":
            raise Turned(404, "Document Not Found")
        name = request.values.get("action", "")
        view, levels = self._actions.get(name, (None, READ))
        client, left = self._api.admit("perm_command", *levels)
        if (request.mimetype or "").startswith("multipart/"):
            root = _element("error", "Multipart POST requests are not supported.")
        elif view is None:
            root = _element("error", f"The action {name} is not known." if name else "An action is needed.")
        else:
            root = view() if view != self._api_info else self._api_info(client)
        root.set("xmlns", NAMESPACE)
        response = make_response(b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root))
        response.headers["Content-Type"] = "text/xml; charset=utf-8"
        return limited(response, left)

    def _check_health(self) -> ET.Element:
        box, root = self._box, ET.Element("health_check")
        fault = box.find_fault()
        appliance = _add(root, "appliance", box.hostname)
        appliance.set("id", box.guid)
        _add(root, "version", f"{box.site.version} ({box.site.build})")
        _add(root, "success", "0" if fault else "1")
        if fault:
            _add(root, "error_message", fault)
        _add(root, "failover_role", box.failover.role.value)
        shared = box.failover.sharing.enabled()
        if shared:
            enabled = _add(root, "enabled_shared_ips")
            for address in shared:
                _add(enabled, "ip", address)
        if box.failover.role is not Role.NONE:
            self._add_last_sync(root)
        return root

    def _add_last_sync(self, root: ET.Element) -> None:
        last = self._box.store.box.setting("last_sync")
        if last:
            moment = _add(root, "last_data_sync_time", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(last))))
            moment.set("ts", str(int(float(last))))
        sync = self._box.failover.works.find_last(Kind.PULL, Kind.SERVE)
        if sync is not None and sync.state == "running":
            _add(root, "last_data_sync_status", f"Running: {sync.percent} % ({sync.done} of {sync.total} bytes)")
        elif sync is not None:
            _add(
                root,
                "last_data_sync_status",
                f"{'OK' if sync.state == 'finished' else 'Failed'}: {sync.step.text.format(**sync.step.facts)}",
            )

    def _api_info(self, client: str = "") -> ET.Element:
        box, root = self._box, ET.Element("api_information")
        _add(root, "api_version", box.site.api_version)
        _add(root, "company_name", box.store.site.setting("company"))
        _add(root, "timestamp", str(int(box.faults.now())))
        permissions = _add(root, "permissions")
        held = json.loads(box.store.site.value("select permissions from api_account where client_id = ?", client) or "{}")
        for name, value in held.items():
            one = _add(permissions, "permission", value if isinstance(value, str) else str(int(value)))
            one.set("id", name)
        return root

    def _appliances(self) -> ET.Element:
        box, root = self._box, ET.Element("appliances")
        one = _add(root, "appliance")
        one.set("id", box.guid)
        _add(one, "display_name", box.hostname)
        _add(one, "public_hostname", box.store.site.setting("public_host") or box.hostname)
        _add(one, "cluster_role", "single")
        _add(one, "failover_role", box.failover.role.value)
        is_accepting = not box.jobs.is_busy and box.failover.role is not Role.BACKUP
        _add(one, "accepting_connections", "1" if is_accepting else "0")
        _add(one, "timezone_offset", "0")
        return root

    def _failover_role(self) -> ET.Element:
        asked = request.values
        if asked.get("role") not in ("primary", "backup"):
            return _element("error", "The role must be primary or backup.")
        try:
            role = Role(asked["role"])
            done = self._box.roles.change(role, sync_first=asked.get("data_sync_first") == "1", force=asked.get("force") == "1")
        except Refused as refused:
            return _element("error", str(refused))
        return _element("success", CHANGED if done else BEGUN)

    def schema(self) -> Response:
        """``GET /api/command.xsd``: the shape of the answers."""
        response = make_response(SCHEMA)
        response.headers["Content-Type"] = "text/xml; charset=utf-8"
        return response


def _element(tag: str, text: str = "") -> ET.Element:
    element = ET.Element(tag)
    element.text = printable(text)
    return element


def _add(parent: ET.Element, tag: str, text: str = "") -> ET.Element:
    element = ET.SubElement(parent, tag)
    element.text = printable(text)
    return element


def printable(text: str) -> str:
    """``text`` without the control characters that XML cannot carry."""
    return "".join(one for one in text if one in "\t\n\r" or " " <= one < "\ufffe" or one > "\uffff")


def add_routes(app: Flask, api: Api) -> None:
    """Hang its addresses on the application."""
    command = Command(api)
    for path in ("/api/command", "/api/command.ns"):
        app.add_url_rule(path, f"command:{path}", command.answer, methods=["GET", "POST"])
    app.add_url_rule("/api/command.xsd", "command:schema", command.schema, methods=["GET"])


SCHEMA = f"""<?xml version="1.0" encoding="UTF-8"?>
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="{NAMESPACE}" elementFormDefault="qualified">
  <xs:element name="error" type="xs:string"/>
  <xs:element name="health_check"><xs:complexType><xs:sequence>
    <xs:element name="appliance"><xs:complexType><xs:simpleContent><xs:extension base="xs:string">
      <xs:attribute name="id" type="xs:string"/></xs:extension></xs:simpleContent></xs:complexType></xs:element>
    <xs:element name="version" type="xs:string"/><xs:element name="success" type="xs:int"/>
    <xs:element name="error_message" type="xs:string" minOccurs="0"/><xs:element name="failover_role" type="xs:string"/>
    <xs:element name="enabled_shared_ips" minOccurs="0"><xs:complexType><xs:sequence>
      <xs:element name="ip" type="xs:string" maxOccurs="unbounded"/></xs:sequence></xs:complexType></xs:element>
    <xs:element name="last_data_sync_time" minOccurs="0"><xs:complexType><xs:simpleContent><xs:extension base="xs:string">
      <xs:attribute name="ts" type="xs:int"/></xs:extension></xs:simpleContent></xs:complexType></xs:element>
    <xs:element name="last_data_sync_status" type="xs:string" minOccurs="0"/>
  </xs:sequence></xs:complexType></xs:element>
</xs:schema>
"""
