"""The reporting API: ``/api/reporting`` with lists of sessions, and recordings."""

from __future__ import annotations

import calendar
import time
from xml.etree import ElementTree as ET

from flask import Flask, Response, make_response, request

from .api import Api, Turned, limited
from .command import printable

NAMESPACE = "https://www.beyondtrust.com/namespaces/API/reporting"


class Reporting:
    """Answers reports. What is wrong with a question is answered with 200 and an ``<error>`` element, like the command API."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._box = api.box
        self._reports = {
            "SupportSessionListing": self._listing,
            "SupportSession": self._listing,
            "SupportSessionRecording": self._recording,
        }

    def answer(self) -> Response:
        """``GET`` or ``POST /api/reporting?generate_report=…``."""
        _, left = self._api.admit("perm_reporting_support")
        report = self._reports.get(request.values.get("generate_report", ""))
        return limited(_error("This report is not known.") if report is None else report(), left)

    def _listing(self) -> Response:
        span = _read_span(self._box.faults.now())
        if span is None:
            return _error("A start (start_date or start_time) with duration, end_date or end_time is needed, or an lsid.")
        site = self._box.store.site
        condition, values = ("lsid = ?", (request.values["lsid"],)) if "lsid" in request.values else ("ended >= ? and ended < ?", span)
        root = ET.Element("session_list", {"xmlns": NAMESPACE})
        rows = site.rows(
            f"select session.*, exists (select 1 from recording where recording.lsid = session.lsid) as kept from session"  # noqa: S608 - ours
            f" where {condition} order by ended, lsid",
            *values,
        )
        for row in rows:
            one = ET.SubElement(root, "session", {"lsid": row["lsid"]})
            _add_moment(one, "start_time", row["started"])
            _add_moment(one, "end_time", row["ended"])
            ET.SubElement(one, "external_key").text = printable(row["client"])
            ET.SubElement(one, "primary_customer").text = printable(row["customer"])
            ET.SubElement(one, "primary_rep").text = printable(row["representative"])
            if row["kept"]:
                base = f"{request.host_url}api/reporting?generate_report=SupportSessionRecording"
                ET.SubElement(one, "session_recording_url").text = f"{base}&lsid={row['lsid']}"
        return _xml(root)

    def _recording(self) -> Response:
        content = self._box.store.site.value("select content from recording where lsid = ?", request.values.get("lsid", ""))
        if content is None:
            raise Turned(404, "Document Not Found")
        response = make_response(content)
        response.headers["Content-Type"] = "video/x-flv"
        return response


def _read_span(now: float) -> tuple[float, float] | None:
    """The asked time as (from, before); None where it was not said. A duration of 0 means until now."""
    asked = request.values
    if "lsid" in asked:
        return 0, 0
    try:
        start = _read_moment("start_time", "start_date")
        end = _read_moment("end_time", "end_date")
        duration = float(asked["duration"]) if "duration" in asked else None
    except ValueError:
        return None
    if start is None or (end is None and duration is None):
        return None
    if end is None:
        end = start + duration if duration else now + 1
    elif "end_time" not in asked:
        end += 86400  # the day of end_date is part of it
    return start, end


def _read_moment(seconds: str, day: str) -> float | None:
    if seconds in request.values:
        return float(request.values[seconds])
    if day in request.values:
        return calendar.timegm(time.strptime(request.values[day], "%Y-%m-%d"))
    return None


def _add_moment(parent: ET.Element, tag: str, seconds: int) -> None:
    element = ET.SubElement(parent, tag, {"timestamp": str(seconds)})
    element.text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _error(text: str) -> Response:
    root = ET.Element("error", {"xmlns": NAMESPACE})
    root.text = text
    return _xml(root)


def _xml(root: ET.Element) -> Response:
    response = make_response(b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root))
    response.headers["Content-Type"] = "text/xml; charset=utf-8"
    return response


def add_routes(app: Flask, api: Api) -> None:
    """Hang its addresses on the application."""
    reporting = Reporting(api)
    for path in ("/api/reporting", "/api/reporting.ns"):
        app.add_url_rule(path, f"reporting:{path}", reporting.answer, methods=["GET", "POST"])
