"""What the peer of a failover pair asks for: ``POST /failover/WORD``, sealed with the pre-shared key. Nothing here needs a login."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, jsonify, make_response, request

from .changes import MERGED, list_changes, read_piece, read_row, write_row
from .core import Appliance
from .errors import Busy, Refused
from .letters import PREFIX, Letter, Reader, Unsealed, seal
from .pairs import Kind, Role
from .store import SYNCED

log = logging.getLogger(__name__)
Content = dict[str, Any] | bytes


class PeerApi:
    """Answers letters."""

    def __init__(self, box: Appliance) -> None:
        self._box = box
        self._failover = box.failover
        self._reader = Reader(box)
        self._serving: dict[str, int] = {}  # data syncs under way: their name at the peer -> their number here
        roles = box.roles
        self._strangers: dict[str, Callable[[Letter], Content]] = {"hello": self._hello, "join": self._failover.join}
        self._words: dict[str, Callable[[dict[str, Any]], Content]] = {
            "leave": lambda _: self._failover.left(),
            "pull": self._pull,
            "begin": self._begin,
            "listing": self._listing,
            "rows": self._rows,
            "piece": self._piece,
            "missing": self._missing,
            "merge": self._merge,
            "progress": self._progress,
            "end": self._end,
            "hold": self._hold,
            "release": self._release,
            "step_down": roles.step_down,
            "take": roles.take,
            "not_taken": self._not_taken,
        }

    def answer(self, word: str) -> Response:
        """Open the letter, do what it says, seal the answer."""
        if self._box.faults.is_on("peer-silent"):
            return make_response("", 503)
        body = request.get_data()
        try:
            key, letter = self._reader.open(word, request.headers, body)
        except Unsealed as unsealed:
            return make_response(jsonify(error=unsealed.code), 403)
        status, content = self._answer(word, letter)
        if word == "step_down" and self._box.faults.is_on("step-down-silent"):
            return make_response("", 503)
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        response = make_response(sent, status)
        response.headers["Content-Type"] = "application/octet-stream"
        response.headers[PREFIX + "Seal"] = seal(key, "answer", letter.nonce, str(status), sent)
        return response

    def _answer(self, word: str, letter: Letter) -> tuple[int, Content]:
        try:
            self._reader.verify_fresh(letter)
            if word in self._strangers:
                return 200, self._strangers[word](letter)
            self._verify_peer(word, letter)
            return 200, self._words[word](letter.content)
        except Refused as refused:
            log.warning("the peer's %s was refused: %s", word, refused)
            facts = {name: str(value) for name, value in refused.facts.items()}
            return 503 if isinstance(refused, Busy) else 409, {"sentence": refused.sentence, "facts": facts}

    def _verify_peer(self, word: str, letter: Letter) -> None:
        pair, _ = self._failover.pairs.need()
        if pair.peer_guid != letter.guid:
            raise Refused("The peer site does not know this relationship (any more).")
        if word not in self._words:
            raise Refused("The peer site does not know what {word} is.", word=word)

    def _hello(self, _: Letter) -> Content:
        return self._failover.describe()

    def _pull(self, _: dict[str, Any]) -> Content:
        if self._failover.role is not Role.BACKUP:
            raise Refused("Only a backup site takes data.")
        self._failover.start_sync()
        return {}

    # a data sync out of this site

    def _begin(self, said: dict[str, Any]) -> Content:
        self._box.jobs.verify_idle()
        self._failover.verify_same_version(said["version"])
        if self._failover.works.find_running(Kind.PULL, Kind.ROLE) is not None:
            raise Refused("The peer site is taking data itself just now.")
        self._serving = {said["sync"]: self._failover.works.start(Kind.SERVE, "Running")}
        return self._failover.describe()

    def _progress(self, said: dict[str, Any]) -> Content:
        self._failover.works.hear()
        if said["sync"] in self._serving:
            self._failover.works.count(self._serving[said["sync"]], said["done"], said["total"])
        return {}

    def _end(self, said: dict[str, Any]) -> Content:
        number = self._serving.pop(said["sync"], None)
        if number is not None:
            self._failover.works.end(number, said["state"], said["step"], **said["facts"])
        if said["state"] == "finished":
            self._box.store.box.set(last_sync=self._box.faults.now())
        return {}

    def _listing(self, said: dict[str, Any]) -> Content:
        found = list_changes(self._box.store, said["epoch"], int(said["since"]))
        entries = [[entry.table, entry.key, entry.digest, entry.size] for entry in found.entries]
        return {"epoch": found.epoch, "seq": found.seq, "full": found.full, "entries": entries}

    def _rows(self, said: dict[str, Any]) -> Content:
        connection = self._box.store.site.connection
        found = [read_row(connection, table, key) for table, key in said["keys"] if table in SYNCED]
        return {"rows": [[row.table, row.key, row.values] for row in found if row is not None]}

    def _piece(self, said: dict[str, Any]) -> Content:
        return read_piece(self._box.store, said["table"], said["key"], int(said["at"]))

    # merging

    def _missing(self, said: dict[str, Any]) -> Content:
        """Of the sessions and recordings that the peer has, those that this site has not."""
        missing = {}
        for table in MERGED:
            here = {row[0] for row in self._box.store.site.rows(f"select lsid from {table}")}  # noqa: S608 - our own names
            missing[table] = [lsid for lsid in said["have"].get(table, ()) if lsid not in here]
        return {"missing": missing}

    def _merge(self, said: dict[str, Any]) -> Content:
        with self._failover.gate.writing(), self._box.store.site.transaction() as connection:
            rows = [(table, values) for table, _, values in said["rows"] if table in MERGED]
            return {"merged": sum(write_row(connection, table, values, None, how="ignore") for table, values in rows)}

    # a change of roles, led by the peer

    def _hold(self, said: dict[str, Any]) -> Content:
        self._box.jobs.verify_idle()
        self._failover.gate.hold(str(said["token"]), float(said["seconds"]))
        return {}

    def _not_taken(self, said: dict[str, Any]) -> Content:
        self._failover.works.end_awaited("failed", said["step"], **said["facts"])
        return {}

    def _release(self, said: dict[str, Any]) -> Content:
        self._failover.gate.release(str(said["token"]))
        return {}


def add_routes(app: Flask, box: Appliance) -> None:
    """Hang its addresses on the application."""
    app.add_url_rule("/failover/<word>", "failover", PeerApi(box).answer, methods=["POST"])
