"""A vendor's image, bought as an OVA: imported, brought up in a lab, and then what a whole migration moves to."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rig import BOXSHIFT, SMALL, Rig
from theatre import find_net
from vendor_appliance import make_vendor_ova
from vendor_stage import VendorStage

from images.home import find_home
from images.leftovers import remove_unused
from images.machine import open_machines
from images.store import Store
from kit.files import write_private
from kit.process import run
from kit.progress import Silent
from migrate.demo.play import Play, find_lost, open_scene
from migrate.engine.model import NodeState, RunState

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(1800)]
NETS = itertools.count(181)
HOSTILE = "a!b@c$ 'd\"e\\;ñ"
READY = ("--ready", "https/login", "--ready-status", "200", "--ready-text", "Site Administration")


@dataclass(frozen=True)
class Bought:
    """What the vendor sold, imported; and how it was told its answers."""

    folder: Path
    vendor: Path
    image: str
    password: str
    secrets: Path
    update_port: int
    digest: str = ""

    @property
    def reference(self) -> str:
        """The first password, as the import and the plan name it."""
        return f"file:{self.secrets}#first"

    def told(self) -> str:
        """What the appliance prints when it has read its CD."""
        seen = hashlib.sha256(self.password.encode()).hexdigest()[:16]
        return f"vendor-setup: box.name=frontdoor box.size=small admin.password={seen}"


def boxshift(*words: str | Path, timeout: float = 300.0) -> str:
    return run([BOXSHIFT, *words], timeout=timeout, env={"NO_COLOR": "1"}).text


@pytest.fixture(scope="module")
def bought(vendor: Path) -> Iterator[Bought]:
    """The import is the user's own command, with the password in a file."""
    home = find_home()
    with tempfile.TemporaryDirectory(prefix="boxshift-vendor-", dir="/var/tmp") as name:
        folder, port = Path(name), find_port()
        ova = make_vendor_ova(home, folder, vendor, update_server=f"http://10.0.2.2:{port}")
        password, secrets = f"{HOSTILE}&<1>", folder / "first.yaml"
        write_private(secrets, f"first: {json.dumps(password)}\n".encode())
        bought = Bought(folder, vendor, f"frontdoor-{port}", password, secrets, port)
        answers = ("--property", "box.name=frontdoor", "--property", f"admin.password={bought.reference}")
        (imported,) = json.loads(boxshift("images", "import", ova, "--name", bought.image, *answers, "--json"))["images"]
        ova.unlink()
        try:
            yield replace(bought, digest=imported["digest"])
        finally:
            store = Store(home)
            remove_unused(home, store, store.read_image(imported["digest"]))


def find_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        found: int = trial.getsockname()[1]
        return found


def test_in_a_lab_it_comes_up_with_its_answers_and_is_found_ready_by_its_own_page(bought: Bought) -> None:
    (box,) = json.loads(boxshift("lab", "up", bought.image, *READY, "--ttl", "1h", "--json", timeout=900))
    try:
        assert (box["path"], box["image"], box["power"]) == ("cold", bought.digest, "running")
        assert "was imported" in box["reason"]
        assert bought.told() in boxshift("lab", "console", box["name"])
        assert bought.told() in boxshift("lab", "logs", box["name"])
    finally:
        boxshift("lab", "down", box["name"], "--yes")


@pytest.fixture(scope="module")
def rig(bought: Bought) -> Iterator[Rig]:
    net = find_net(NETS)
    stage = VendorStage(bought.folder / "stage", net=net, vendor=bought.vendor, image=bought.image, update_port=bought.update_port)
    folder = bought.folder / "move"
    with open_scene(Play(folder, SMALL, soak=2.0), stage, Silent()) as scene:
        plan = scene.plan.read_text()
        machine = f"name: {stage.name}, image: {bought.image}, cpus: 1}}"
        assert machine in plan
        ready = machine[:-1] + ", ready: {page: https/login, status: 200, text: Site Administration}}"
        factory = f'  factory_password: "{bought.reference}"\n'
        plan = plan.replace(machine, ready).replace("new:\n", f"new:\n{factory}")
        write_private(scene.plan, plan.encode())
        yield Rig(scene, stage, folder / "boxshift.log")


def test_it_is_the_new_box_of_a_whole_migration(bought: Bought, rig: Rig) -> None:
    assert rig.run(timeout=1200.0) == 0, rig.said()[-4000:]
    status = rig.status()
    assert status.state is RunState.DONE
    assert status.node("first-login").state is NodeState.DONE
    summary = rig.scene.end_visits()
    assert summary.records_written
    assert len(summary.chains) == 1
    assert find_lost(rig.plan, status, summary) == ()
    with open_machines(find_home()) as machines:
        new = machines.read_machine(rig.stage.name)
        assert new.image == bought.digest
        assert not new.power.is_off
        assert not machines.hypervisor.ping_agent(new.uuid), "no agent is inside"
        assert any(bought.told() in line for line in machines.read_console(new.name, lines=500))
