"""Packages for a closed network: the key out of the box, everything on offer onto a disk, and into the box from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import BOXSHIFT, Rig
from test_upgrade import ask, verify_ended_well
from theatre import find_net

from images.local_appliance import LocalAppliance, LocalUpdateServer
from kit.errors import BoxshiftError
from kit.process import run
from kit.progress import Silent
from kit.secret import Secret
from migrate.appliances.bomgar.shop import UpdateShop, verify_url
from migrate.appliances.errors import PackageRefusedError
from migrate.demo.play import Scenario
from migrate.transfer_folder import LIST, TransferError, read_transfer, verify_file

process = pytest.mark.process
network = pytest.mark.network
PACKAGES = ("base-5.2.0", "base-5.3.0", "site-21.2.1", "site-21.3.2", "site-22.1.4")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, vendor: Path) -> Iterator[tuple[LocalAppliance, LocalUpdateServer]]:
    folder = tmp_path_factory.mktemp("closed")
    net = find_net(iter(range(60, 90)))
    with LocalUpdateServer(vendor, folder / "updates", port=8442, address=f"127.{net}.1.1") as updates:
        box = LocalAppliance(folder / "box", f"127.{net}.1.11", (), 8443, "current", vendor, updates.url)
        with box:
            yield box, updates


@pytest.fixture
def shop(lab: tuple[LocalAppliance, LocalUpdateServer]) -> Iterator[tuple[UpdateShop, Secret]]:
    """The server as if nothing had been downloaded yet, and the box's key."""
    box, updates = lab
    (updates.folder / "sold.json").unlink(missing_ok=True)
    with UpdateShop(updates.url) as opened:
        yield opened, read_key(box)


def read_key(box: LocalAppliance) -> Secret:
    """The key as the box itself makes it; how the driver reads it from the page is the family contract's matter."""
    from migrate.appliances.bomgar.driver import BomgarAppliance
    from migrate.appliances.contract import Account, Credentials, Endpoint

    factory = Credentials(Account("admin", Secret("password")), Account("admin", Secret("password")))
    own = Credentials(Account("admin", Secret("a!b@c$ 'd\"e\\;ñ1")), Account("admin", Secret("a!b@c$ 'd\"e\\;ñ2")))
    driver = BomgarAppliance(Endpoint(box.admin, box.port), own)
    try:
        driver.ensure_first_login(factory)
        key = driver.read_download_key()
    finally:
        driver.close()
    assert key is not None
    return key


@process
@network
def test_everything_on_offer_comes_once_with_digests_in_the_order_of_installing(shop: tuple[UpdateShop, Secret], tmp_path: Path) -> None:
    opened, key = shop
    found = opened.fetch(key, tmp_path, Silent())
    assert [entry.file for entry in found.transfer.packages] == [f"{name}.pkg" for name in PACKAGES]
    assert set(found.new) == {entry.file for entry in found.transfer.packages}
    for entry in found.transfer.packages:
        assert verify_file(tmp_path, entry).stat().st_mode & 0o077 == 0
    again = opened.fetch(key, tmp_path, Silent())
    assert again.new == ()
    assert again.transfer.packages == found.transfer.packages
    assert key.reveal() not in (tmp_path / LIST).read_text()


@process
@network
def test_what_came_whole_before_a_crash_is_kept_although_it_is_not_offered_again(shop: tuple[UpdateShop, Secret], tmp_path: Path) -> None:
    opened, key = shop
    opened.fetch(key, tmp_path, Silent())
    (tmp_path / LIST).unlink()  # as if the program had died after the last byte of the first, and before it had a name
    (tmp_path / "base-5.2.0.pkg").rename(tmp_path / "base-5.2.0.pkg.part")
    (tmp_path / "base-5.3.0.pkg.part").write_bytes((tmp_path / "base-5.3.0.pkg").read_bytes()[:-100])
    found = opened.fetch(key, tmp_path, Silent())
    assert found.new == ("base-5.2.0.pkg",)
    assert not list(tmp_path.glob("*.part"))


@process
@network
@pytest.mark.parametrize("key", ["", "no key", "ABCD-EFGH", "'\"<script>", "é" * 400])
def test_a_key_that_is_none_is_refused_in_the_servers_words(shop: tuple[UpdateShop, Secret], tmp_path: Path, key: str) -> None:
    with pytest.raises(BoxshiftError) as refused:
        shop[0].fetch(Secret(key), tmp_path, Silent())
    assert refused.value.sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["http://updates.example.com", "ftp://127.0.0.1", "updates", "", "https://", "http://192.0.2.1/"])
def test_a_key_is_never_sent_in_clear(url: str) -> None:
    with pytest.raises(BoxshiftError):
        verify_url(url)


@process
@network
def test_a_package_that_changed_on_the_way_is_not_installed(shop: tuple[UpdateShop, Secret], tmp_path: Path) -> None:
    opened, key = shop
    opened.fetch(key, tmp_path, Silent())
    target = tmp_path / "site-21.2.1.pkg"
    raw = bytearray(target.read_bytes())
    raw[len(raw) // 2] ^= 1
    target.write_bytes(raw)
    entry = next(one for one in read_transfer(tmp_path).packages if one.file == target.name)
    with pytest.raises(TransferError, match="digest"):
        verify_file(tmp_path, entry)
    target.write_bytes(bytes(raw)[:-1])
    with pytest.raises(TransferError, match="bytes"):
        verify_file(tmp_path, entry)
    done = run([BOXSHIFT, "packages", "verify", tmp_path, "--json"], timeout=60, accept=range(256))
    assert (done.status, json.loads(done.out)["error"]["code"]) == (2, "transfer")


ENTRY: dict[str, Any] = {"file": "site-21.2.1.pkg", "kind": "site", "version": "21.2.1", "build": "1", "size": 3, "sha256": "0" * 64}


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/b", "", ".hidden", "a\\b", "a\nb", "x" * 300])
def test_a_list_that_names_files_elsewhere_is_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / LIST).write_text(json.dumps({"packages": [ENTRY | {"file": file}]}))
    with pytest.raises(TransferError):
        read_transfer(tmp_path)


LISTS = st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps)


@given(raw=st.binary(max_size=400) | LISTS.map(str.encode))
def test_whatever_the_list_holds_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "lists"
    folder.mkdir(exist_ok=True)
    (folder / LIST).write_bytes(raw)
    with suppress(TransferError):
        read_transfer(folder)


def test_without_a_list_the_names_tell_the_order(tmp_path: Path) -> None:
    for name in ("site-22.1.4.pkg", "base-5.2.0.pkg", "readme.txt", ".site-1.2.3"):
        (tmp_path / name).write_bytes(b"abc")
    assert [(entry.file, entry.version) for entry in read_transfer(tmp_path).packages] == [
        ("base-5.2.0.pkg", "5.2.0"),
        ("site-22.1.4.pkg", "22.1.4"),
    ]


@process
@network
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_upgrade_from_a_folder_ends_well_and_an_altered_package_stops_it(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(scenario=Scenario.OFFLINE)
    folder = rig.plan.parent / "transfer"
    target = folder / "base-5.2.0.pkg"
    whole = target.read_bytes()
    target.write_bytes(whole[:-1])
    text = rig.plan.read_text()
    rig.plan.write_text(text.replace("longest: 60s", 'longest: 60s, target: {base: "5.2.0", site: "21.1.1"}'))
    assert rig.run() == 2, rig.said()[-3000:]
    target.write_bytes(whole)
    assert rig.run("retry", str(rig.plan)) == 0
    assert rig.run() == 0, rig.said()[-3000:]
    verify_ended_well(rig, ("base-5.2.0",))
    code, said, _ = ask("packages", "verify", str(folder))
    assert code == 0
    assert [entry["version"] for entry in said["packages"]] == ["5.2.0", "5.3.0", "21.2.1", "21.3.2", "22.1.4"]


def test_a_package_that_is_none_is_not_kept(tmp_path: Path) -> None:
    from migrate.appliances.bomgar.shop import _keep

    (tmp_path / "x-1.2.pkg.part").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(PackageRefusedError):
        _keep(tmp_path / "x-1.2.pkg.part")
