"""``boxshift failover`` on two local boxes: looked at, established, synced, swapped, broken, and refused where it must be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from killer import open_killer
from rig import BOXSHIFT, kill, wait_until
from theatre import find_net

from certs.served import read_pin
from images.local_appliance import LocalAppliance
from kit.process import Child, run
from kit.progress import Silent
from kit.secret import Secret
from migrate.demo.authority import issue
from migrate.demo.secrets_file import DemoSecrets
from migrate.demo.stage import SITE, SiteSize, seed_input
from migrate.facts import FailoverRole
from migrate.plan_file import read_any_plan
from migrate.wiring.pairs import make_pair

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.timeout(300)]
KEY = "pre-shared a!b@c$ 'd\"e\\;ñ"


@dataclass(frozen=True)
class PairOfBoxes:
    a: LocalAppliance
    b: LocalAppliance
    plan: Path
    shared: str

    def say(self, *words: str) -> tuple[int, Any]:
        """``boxshift failover WORD PLAN MORE --json``."""
        done = run([BOXSHIFT, "failover", words[0], self.plan, *words[1:], "--json"], timeout=120, env={"NO_COLOR": "1"}, accept=range(256))
        assert "Traceback" not in done.err.decode()
        assert KEY not in done.err.decode() + done.out.decode()
        return done.status, json.loads(done.out) if done.out.strip().startswith(b"{") else done.out.decode()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, vendor: Path) -> Iterator[PairOfBoxes]:
    folder = tmp_path_factory.mktemp("failover")
    net = find_net(iter(range(91, 100)))
    shared = f"127.{net}.0.11"
    secrets, issued = DemoSecrets.make(Secret("unused")), issue(SITE)
    a = LocalAppliance(folder / "a", f"127.{net}.1.11", (shared,), 8443, "current", vendor)
    b = LocalAppliance(folder / "b", f"127.{net}.1.12", (), 8443, "current", vendor)
    small = seed_input(SiteSize(users=4, sessions=12, recordings=2, file_items=3, jump_clients=2), secrets, issued)
    own = {"site_password": "own site ñ", "appliance_password": "own appliance ñ", "vault": False}
    with a, b:
        a.seed(small | {"packages": [], "preshared_key": KEY})
        b.seed(small | own | {"sessions": 0, "users": 1, "packages": [], "spare_addresses": [shared], "preshared_key": "another"})
        plan = folder / "pair.yaml"
        words = {
            "a_site": secrets.old_site.reveal(),
            "a_appliance": secrets.old_appliance.reveal(),
            "b_site": "own site ñ",
            "b_appliance": "own appliance ñ",
            "psk": KEY,
            "backup": "backup ñ",
        }
        (folder / "secrets.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in words.items()))
        (folder / "secrets.yaml").chmod(0o600)
        plan.write_text(render(a, b, shared))
        yield PairOfBoxes(a, b, plan, shared)


def render(a: LocalAppliance, b: LocalAppliance, shared: str) -> str:
    def box(name: str, one: LocalAppliance) -> str:
        accounts = f'{{site: {{password: "file:secrets.yaml#{name}_site"}}, appliance: {{password: "file:secrets.yaml#{name}_appliance"}}}}'
        return (
            f"{name}: {{address: {one.admin}, port: {one.port}, pin: {read_pin(one.admin, one.port)}, "
            f"service: {{address: {shared}}}, accounts: {accounts}}}\n"
        )

    return (
        f"boxshift: 1\nprocedure: pair\nsite: {{name: {SITE}, port: 8443}}\n{box('a', a)}{box('b', b)}shared: [{shared}]\n"
        'pre_shared_key: "file:secrets.yaml#psk"\n'
        'certificate: {safety_passphrase: "file:secrets.yaml#backup"}\nbackup: {password: "file:secrets.yaml#backup"}\n'
    )


def roles(said: Any) -> dict[str, str]:
    return {name: said[name]["failover"]["role"] for name in ("a", "b")}


def test_the_whole_life_of_a_pair_by_its_commands(pair: PairOfBoxes) -> None:
    code, said = pair.say("status")
    assert (code, said["state"], roles(said)) == (0, "no relationship", {"a": "none", "b": "none"})
    code, said = pair.say("sync")
    assert (code, said["error"]["code"]) == (3, "refused")
    code, said = pair.say("establish")
    assert (code, said["error"]["code"]) == (3, "refused"), "nobody at the terminal agreed"
    code, said = pair.say("establish", "--yes")
    assert (code, said["state"]) == (0, "a primary, b backup"), said
    assert said["a"]["failover"]["last_sync"] is not None
    code, said = pair.say("establish", "--yes")
    assert (code, said["state"]) == (0, "a primary, b backup"), "a second time changes nothing"
    code, said = pair.say("swap", "--dry-run", "--yes")
    assert code == 0
    code, said = pair.say("swap", "--yes")
    assert (code, said["state"]) == (0, "b primary, a backup"), said
    assert [row["enabled"] for row in said["b"]["failover"]["shared"]] == [True]
    assert [row["enabled"] for row in said["a"]["failover"]["shared"]] == [False]
    code, said = pair.say("sync")
    assert (code, said["b"]["failover"]["sync"]) == (0, "finished")
    code, said = pair.say("break", "--yes")
    assert (code, said["state"]) == (0, "no relationship")


def kill_amid(pair: PairOfBoxes, log: Path, sign: str, *words: str) -> dict[str, Any]:
    """Kill the command with kill -9 once `status` says this; answers what it said then."""
    said: dict[str, Any] = {}

    def is_there() -> bool:
        said.update(pair.say("status")[1])
        return any(sign in finding["sentence"] for finding in said["findings"])

    with Child([BOXSHIFT, "failover", words[0], pair.plan, *words[1:]], log=log, env={"NO_COLOR": "1"}) as child:
        assert wait_until(is_there, child), child.said()
        kill(child)
    return said


def test_a_command_that_was_killed_is_named_by_status_and_the_same_command_goes_on(pair: PairOfBoxes, tmp_path: Path) -> None:
    """Between its parts, and while the boxes work on: nothing has to be known of where it was."""
    log = tmp_path / "log"
    assert pair.say("break", "--yes")[0] == 0
    pair.b.fault("sync-seconds", "600")
    said = kill_amid(pair, log, "A data sync is running", "establish", "--yes")
    assert said["state"] == "a primary, b backup"
    pair.b.stop()  # nor does the box get to the end of it
    pair.b.start()
    pair.b.fault("sync-seconds", "off")
    code, said = pair.say("establish", "--yes")
    assert (code, said["state"], said["b"]["failover"]["sync"]) == (0, "a primary, b backup", "finished")
    assert said["b"]["failover"]["last_sync"] is not None
    pair.b.fault("sync-seconds", "6")
    said = kill_amid(pair, log, "A change of roles is running at box b", "swap", "--primary", "b", "--yes")
    assert said["state"] == "a primary, b backup"
    pair.b.fault("sync-seconds", "off")
    for _ in range(2):  # also by who was killed after its end
        code, said = pair.say("swap", "--primary", "b", "--yes")
        assert (code, said["state"]) == (0, "b primary, a backup"), said


def test_every_command_that_was_killed_at_each_of_its_acts_goes_on(pair: PairOfBoxes, tmp_path: Path) -> None:
    """Typed again after each death, until it says that it is done."""
    assert pair.say("break", "--yes")[0] == 0
    with open_killer(None, tmp_path / "killer") as killer:
        assert killer.run("failover", "establish", str(pair.plan), "--yes") == 0, killer.said()
        assert killer.run("failover", "sync", str(pair.plan)) == 0, killer.said()
        assert pair.say("status")[1]["state"] == "a primary, b backup"
        assert killer.run("failover", "swap", str(pair.plan), "--primary", "b", "--yes") == 0, killer.said()
        assert pair.say("status")[1]["state"] == "b primary, a backup"
        make_conflict(pair)
        assert killer.run("failover", "resolve", str(pair.plan), "--yes") == 0, killer.said()
        assert pair.say("status")[1]["state"] in {"a primary, b backup", "b primary, a backup"}
        assert killer.run("failover", "break", str(pair.plan), "--yes") == 0, killer.said()
        assert pair.say("status")[1]["state"] == "no relationship"
        killed = {death.place for death in killer.deaths() if death.moment == "sent"}
        assert {f"failover {word}" for word in ("establish", "sync", "swap b", "resolve", "break")} <= killed


def make_conflict(pair: PairOfBoxes) -> None:
    """Both are the primary."""
    pair.b.fault("peer-silent")
    with make_pair(read_any_plan(pair.plan), Silent()).open("a") as box:
        box.set_failover_role(FailoverRole.PRIMARY, data_sync_first=False, progress=Silent())
    pair.b.fault("peer-silent", "off")
    assert pair.say("status")[1]["state"] == "conflict: both primary"


def test_a_box_that_is_gone_is_told_and_nothing_is_forced(pair: PairOfBoxes) -> None:
    pair.b.stop()
    try:
        code, said = pair.say("status")
        assert (code, said["state"], said["b"]) == (3, "not wholly known", None)
        assert "box-unread" in {finding["code"] for finding in said["findings"]}
        for word in ("establish", "swap"):
            code, said = pair.say(word, "--yes")
            assert (code, said["error"]["code"]) == (3, "blocked"), said
    finally:
        pair.b.start()


def test_a_plan_for_something_else_is_refused(pair: PairOfBoxes, tmp_path: Path) -> None:
    other = tmp_path / "plan.yaml"
    other.write_text(pair.plan.read_text().replace("procedure: pair", "procedure: upgrade"))
    done = run([BOXSHIFT, "failover", "status", other], timeout=60, accept=range(256))
    assert done.status == 2
    assert "pre_shared_key: is not a setting of a plan" in done.err.decode()
