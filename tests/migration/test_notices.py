"""Notices: a real webhook on loopback is told of gates, failures and ends, and nothing it does disturbs a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rig import Rig
from test_upgrade import ask, change

from kit.errors import UsageError
from kit.secret import Secret
from migrate.demo.play import Scenario
from migrate.wiring.notices import Notice, make_sender

process = pytest.mark.process
network = pytest.mark.network


class Hook:
    """A webhook that writes down what it is told, and answers ``status``."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.status = 200
        hook = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)

    @property
    def address(self) -> str:
        return f"json://ana:h00k-p4ss@127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@contextmanager
def told_of(rig: Rig, address: str) -> Iterator[None]:
    """The rig's plan tells this address."""
    secrets = rig.plan.parent / "secrets.yaml"
    secrets.write_text(secrets.read_text() + f"hook: {json.dumps(address)}\n")
    change(rig, ("clients: {wait", 'notify: {to: ["file:secrets.yaml#hook"]}\nclients: {wait'))
    yield


@network
def test_a_notice_arrives_whole(hook: Hook) -> None:
    assert make_sender([Secret(hook.address)])(Notice("a <title>", "two\nlines & more"))
    assert hook.told[0]["title"] == "a <title>"
    assert hook.told[0]["message"] == "two\nlines & more"


@network
def test_a_refused_notice_is_no_success(hook: Hook) -> None:
    hook.status = 500
    assert not make_sender([Secret(hook.address)])(Notice("title", "body"))


@pytest.mark.parametrize("address", ["", "no address", "ftp-unknown://x", "://"])
def test_what_is_no_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_sender([Secret(address)])
    assert "notify.to[0]" in refused.value.sentence
    assert not address or address not in refused.value.sentence


@process
@network
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_tells_its_failure_its_gate_and_its_end(make_rig: Callable[..., Rig], hook: Hook) -> None:
    rig = make_rig(scenario=Scenario.UPGRADE)
    with told_of(rig, hook.address):
        change(rig, ("longest: 60s", 'longest: 60s, target: {base: "5.2.0", site: "21.1.1"}'))
        rig.stage.old_box.fault("install-fails", "on")
        assert rig.run("upgrade", str(rig.plan)) == 6, rig.said()[-3000:]
        assert titles(hook) == ["boxshift: support.example.test waits for approval"]
        assert f"boxshift approve {rig.plan} --node approve-upgrade" in hook.told[0]["message"]
        assert ask("approve", str(rig.plan))[0] == 4, rig.said()[-3000:]  # it goes on with the run itself
        assert titles(hook)[-1] == "boxshift: support.example.test waits for a decision"
        assert "did not install" in hook.told[-1]["message"]
        rig.stage.old_box.fault("install-fails", "off")
        hook.status = 500  # from here on nobody takes it, and the run does not mind
        assert ask("retry", str(rig.plan))[0] == 0, rig.said()[-3000:]
        assert titles(hook)[-1] == "boxshift: support.example.test is done"
    assert "a notice could not be sent" in rig.said()
    for path in rig.plan.parent.rglob("*"):
        if path.is_file() and path.name != "secrets.yaml" and not is_of_the_box(path, rig):
            assert b"h00k-p4ss" not in path.read_bytes(), path


def is_of_the_box(path: Path, rig: Rig) -> bool:
    return (rig.plan.parent / "stage") in path.parents


def titles(hook: Hook) -> list[str]:
    return [one["title"] for one in hook.told]
