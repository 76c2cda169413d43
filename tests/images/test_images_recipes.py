"""The recipes that ship: debian-minimal, and the one in the documentation that users copy. Built, built again, and booted."""

from __future__ import annotations

import os
import shutil
import ssl
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.build import build
from images.domain import Forward
from images.home import find_home
from images.machine import MachineSpec, open_machines
from images.readiness import wait_for_ready
from images.ready_page import ReadyPage, Speech
from images.recipe import Recipe, find_recipe, read_recipe
from images.store import Image, Store
from kit.process import run

DOCUMENTED = Path(__file__).parents[2] / "docs/images/status-page"
PLACE = Forward("127.0.3.41", 8443, "10.0.2.15", 443)


class Heard:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def update(self, label: str, done: float | None = None, total: float | None = None) -> None:
        self.labels.append(label)


def read_minimal() -> Recipe:
    return read_recipe(find_recipe("debian-minimal"))


def test_both_stand_on_the_same_packages_and_say_what_shows_that_they_are_ready() -> None:
    minimal, documented = read_minimal(), read_recipe(DOCUMENTED / "recipe.yaml")
    for part in ("suite", "packages", "kernel", "leave_out", "date", "snapshot"):
        assert getattr(minimal, part) == getattr(documented, part), part
    assert minimal.ready == ReadyPage(Speech.SSH, 22)
    assert documented.ready == ReadyPage(Speech.HTTPS, 443, "/status")


def test_the_gateway_is_the_minimal_one_with_what_leads_visitors() -> None:
    minimal, gateway = read_minimal(), read_recipe(find_recipe("gateway"))
    assert set(gateway.packages) - set(minimal.packages) == {"nftables", "conntrack"}
    assert set(gateway.kernel.modules) - set(minimal.kernel.modules) == {"net/netfilter", "net/ipv4/netfilter", "net/ipv6/netfilter"}
    assert set(gateway.enable) - set(minimal.enable) == {"nftables.service"}
    assert all(one.source.exists() for one in gateway.files)
    for part in ("suite", "mask", "leave_out", "ready", "date"):
        assert getattr(minimal, part) == getattr(gateway, part), part


@pytest.mark.process
def test_the_gateway_s_rules_are_rules() -> None:
    """In a network of its own: nothing of this machine's is touched."""
    if os.getuid() != 0:
        pytest.skip("network namespaces need root")
    rules = next(one.source for one in read_recipe(find_recipe("gateway")).files if one.source.name == "gateway") / "etc/nftables.conf"
    shown = run(["unshare", "--net", "sh", "-c", 'nft -f "$1" && nft list ruleset', "sh", rules], timeout=30).text
    assert shown.count("type nat hook prerouting priority dstnat") == 2


def test_a_recipe_in_the_folder_comes_before_one_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("debian-minimal").is_absolute()
    (tmp_path / "debian-minimal").write_text("mine")
    assert find_recipe("debian-minimal") == Path("debian-minimal")
    assert find_recipe("../etc/passwd") == Path("../etc/passwd")


@pytest.fixture(scope="module")
def built() -> Image:
    """Cached by content in the user's own home, as the reference image is."""
    return build(read_recipe(DOCUMENTED / "recipe.yaml"), find_home())


@pytest.mark.machine
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_changed_file_builds_on_the_same_packages_and_the_same_content_is_the_same_image(built: Image, tmp_path: Path) -> None:
    home, store = find_home(), Store(find_home())
    shutil.copytree(DOCUMENTED, tmp_path / "mine")
    page = tmp_path / "mine/files/opt/status/status.py"
    page.write_text(page.read_text() + f"# {uuid.uuid4()}\n")
    heard = Heard()
    changed = build(read_recipe(tmp_path / "mine/recipe.yaml"), home, progress=heard)
    assert "Debian packages: unchanged" in heard.labels
    assert changed.digest != built.digest
    store.remove(changed)
    os.utime(page, (1, 1))
    again = build(read_recipe(tmp_path / "mine/recipe.yaml"), home)
    store.remove(again)
    assert again.digest == changed.digest


@pytest.fixture
def machine(built: Image) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    with open_machines(find_home()) as machines:
        try:
            machines.ensure_machine(MachineSpec(name, built.digest, f"test {name}", (PLACE,), cpus=2))
            wait_for_ready(machines, name)
            yield name
        finally:
            machines.ensure_removed(name)


@pytest.mark.machine
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_documented_appliance_boots_and_is_found_ready_by_its_own_page(machine: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(f"https://{PLACE.host}:{PLACE.host_port}/status", context=context, timeout=20) as answer:
        assert answer.read().startswith(b"status-page is up\n")
    with open_machines(find_home()) as machines:
        assert machines.read_machine(machine).ready == ReadyPage(Speech.HTTPS, 443, "/status")
