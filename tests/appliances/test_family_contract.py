"""The contract that every family fulfils, tried on every kind of box there is. Words, versions and skins come from ``stands.PARAMS``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pki import NAME, make_bundle
from stands import FACTORY, HOSTILE, OWN, Stand

from kit.errors import ChangedError, RefusedError, RejectedError
from kit.progress import Silent
from kit.secret import Secret
from migrate.appliances.contract import Account, Credentials
from migrate.appliances.errors import BackupRefusedError, LoginRefusedError, PackageRefusedError, WrongBoxError, WrongKeyError
from migrate.facts import BoxAddress, ClockReading, PackageKind, SiteContent, Version

PASSWORD = Secret(HOSTILE + " backup")
SLEW = 0.01  # seconds by which two clocks may part between two readings of them


class TestAccess:
    language = "en"  # on the virtual machine

    def test_the_first_login_changes_both_passwords_and_a_second_call_does_nothing(self, new_stand: Stand) -> None:
        new_stand.open().ensure_first_login(FACTORY)
        new_stand.open().verify_access()
        new_stand.open().ensure_first_login(FACTORY)
        with pytest.raises(LoginRefusedError):
            new_stand.open(FACTORY).verify_access()

    def test_the_first_login_takes_up_where_it_was_cut_off_between_the_consoles(self, new_stand: Stand) -> None:
        with closing(new_stand.open(Credentials(FACTORY.site, OWN.appliance))) as half:
            half._change_factory_password(half._box.name, FACTORY.appliance, OWN.appliance, None)
        new_stand.open().ensure_first_login(FACTORY)
        new_stand.open().verify_access()

    def test_the_factory_password_is_not_taken_as_the_boxs_own(self, new_stand: Stand) -> None:
        with pytest.raises(RefusedError, match="factory"):
            new_stand.open(FACTORY).ensure_first_login(FACTORY)


class TestInventory:
    language = "es"  # on the virtual machine

    def test_facts_agree_with_each_other_and_with_what_the_box_was_given(self, new_stand: Stand) -> None:
        box = new_stand.settle(site_name="Soporte", users=7, sessions=30, recordings=4, file_items=8, jump_clients=5, hostname="old-box")
        facts, true_clock = box.read_facts(), new_stand.read_clock()
        assert facts.identity == box.read_identity()
        assert facts.identity.hostname == "old-box"
        assert facts.site_name == "Soporte"
        assert (facts.base, facts.site) == box.read_versions()
        assert facts.healthy
        assert facts.failover_role == "none"
        verify_clock(facts.clock, true_clock)
        assert {row.address for row in facts.addresses} == {row.address for row in box.read_addresses()}
        assert _counts(facts.content) == (7, 30, 4, 8, 5)
        assert all(client.connected for client in facts.content.jump_clients or ())

    def test_without_an_api_account_the_pages_tell_what_they_can_and_nothing_is_made_up(self, new_stand: Stand) -> None:
        new_stand.settle(users=3, sessions=60, recordings=2, file_items=2, jump_clients=2)
        content = new_stand.open().read_content()
        assert content.users is not None
        assert len(content.users) == 3
        assert content.sessions is None, "the page lists only the last 50 of 60"
        assert content.recordings is None
        assert content.jump_clients is None, "the page does not tell who needs an update"
        assert content.files is not None
        assert len(content.files) == 2

    def test_an_unhealthy_box_says_so(self, stand: Stand) -> None:
        with stand.faulty("unhealthy"):
            good, note = stand.open().read_health()
        assert not good
        assert note

    def test_a_wrong_clock_is_seen_within_its_uncertainty(self, stand: Stand) -> None:
        with stand.faulty("clock", "-4000"):
            clock = stand.open().read_clock()
        true_clock = stand.read_clock()
        verify_clock(clock, replace(true_clock, offset=true_clock.offset - 4000.0))


class TestBackups:
    language = "en"  # on the virtual machine

    @pytest.mark.parametrize("by_api", [True, False], ids=["api", "page"])
    def test_a_backup_reads_back_whole_and_tells_what_it_is_of(self, stand: Stand, tmp_path: Path, by_api: bool) -> None:
        box = stand.settle(users=5, sessions=10)
        taker = box if by_api else stand.open()
        receipt = taker.take_backup(tmp_path / "a.nsb", PASSWORD, history=True, progress=Silent())
        assert receipt.site == box.read_versions()[1]
        assert receipt.guid == box.read_identity().guid
        assert receipt.encrypted
        assert (tmp_path / "a.nsb").stat().st_mode & 0o777 == 0o600
        assert taker.verify_backup(tmp_path / "a.nsb", PASSWORD) == receipt
        with pytest.raises(BackupRefusedError):
            taker.verify_backup(tmp_path / "a.nsb", Secret("another"))

    @pytest.mark.parametrize("fault", ["backup-truncated", "backup-altered"])
    def test_a_damaged_backup_is_refused_and_does_not_stay(self, stand: Stand, tmp_path: Path, fault: str) -> None:
        with stand.faulty(fault):
            for history in (True, False):
                with pytest.raises(BackupRefusedError):
                    stand.open_with_api().take_backup(tmp_path / "a.nsb", PASSWORD, history=history, progress=Silent())
                assert list(tmp_path.iterdir()) == []

    def test_a_restore_brings_the_content_back_and_may_be_repeated(self, stand: Stand, tmp_path: Path) -> None:
        box = stand.settle(users=5, sessions=12, file_items=4, jump_clients=3)
        before = box.read_content()
        box.take_backup(tmp_path / "a.nsb", PASSWORD, history=True, progress=Silent())
        stand.seed({"users": 9, "sessions": 20})
        assert box.read_content() != before
        for _ in range(2):
            stand.open_with_api().restore_backup(tmp_path / "a.nsb", PASSWORD, progress=Silent())
            after = stand.open_with_api().read_content()
            assert (after.users, after.sessions, after.files) == (before.users, before.sessions, before.files)

    def test_a_restore_that_fails_on_the_box_is_an_error(self, stand: Stand, tmp_path: Path) -> None:
        box = stand.settle(users=5)
        box.take_backup(tmp_path / "a.nsb", PASSWORD, history=True, progress=Silent())
        with stand.faulty("restore-fails"), pytest.raises(BackupRefusedError):
            box.restore_backup(tmp_path / "a.nsb", PASSWORD, progress=Silent())

    def test_a_slow_restore_is_waited_for(self, stand: Stand, tmp_path: Path) -> None:
        box = stand.settle(users=5)
        box.take_backup(tmp_path / "a.nsb", None, history=True, progress=Silent())
        stand.seed({"users": 11})
        with stand.faulty("restore-seconds", "2"):
            box.restore_backup(tmp_path / "a.nsb", None, progress=Silent())
        content = stand.open_with_api().read_content()
        assert content.users is not None
        assert len(content.users) == 5

    def test_the_vaults_key_is_carried_where_there_is_one(self, stand: Stand, tmp_path: Path) -> None:
        box = stand.open_with_api()
        assert not box.take_vault_key(tmp_path / "none.key", PASSWORD)
        assert list(tmp_path.iterdir()) == []
        stand.seed({"vault": True})
        if not box.take_vault_key(tmp_path / "v.key", PASSWORD):
            assert stand.profile == "old", "only the old version has no place for it"
            return
        box.restore_vault_key(tmp_path / "v.key", PASSWORD)
        with pytest.raises(RejectedError):
            box.restore_vault_key(tmp_path / "v.key", Secret("another"))


class TestExtras:
    language = "es"  # on the virtual machine

    def test_files_are_carried_byte_for_byte_with_their_names(self, stand: Stand, tmp_path: Path) -> None:
        box = stand.settle(file_items=7)
        for item in box.read_content().files or ():
            box.take_file(item, tmp_path / "x")
            content = (tmp_path / "x").read_bytes()
            assert len(content) == item.size
        (tmp_path / "up").write_bytes(b"\0\r\n--boundary\xff" * 40_000)
        box.upload_file(tmp_path / "up", 'ñandú "x" & <y>.bin')
        box.upload_file(tmp_path / "up", 'ñandú "x" & <y>.bin')
        sent = next(item for item in box.read_content().files or () if item.name.startswith("ñandú"))
        assert sent.name == 'ñandú "x" & <y>.bin'
        box.take_file(sent, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "up").read_bytes()

    def test_recordings_are_taken_by_the_api_and_only_by_it(self, stand: Stand, tmp_path: Path) -> None:
        box = stand.settle(sessions=3, recordings=2)
        recordings = box.read_content().recordings or ()
        assert len(recordings) >= 2
        box.take_recording(recordings[0], tmp_path / "r.flv")
        assert (tmp_path / "r.flv").stat().st_size > 4000
        with pytest.raises(RefusedError, match="API account"):
            stand.open().take_recording(recordings[0], tmp_path / "r.flv")
        with pytest.raises(RejectedError):
            box.take_recording("0" * 32, tmp_path / "none.flv")
        assert not (tmp_path / "none.flv").exists()


class TestCertificates:
    language = "es"  # on the virtual machine

    def test_certificate_chain_and_key_go_out_and_in_unchanged(self, stand: Stand) -> None:
        bundle, passphrase = make_bundle("out.example.test"), Secret(HOSTILE + " passphrase")
        box = stand.open_with_api()
        held = len(box.read_certificates())
        box.import_certificate(bundle.to_pkcs12(passphrase), "site.p12", passphrase)
        box.import_certificate(bundle.to_pkcs12(passphrase), "site.p12", passphrase)
        rows = [row for row in box.read_certificates() if row.issued_to == "out.example.test"]
        assert len(rows) == 1
        assert rows[0].has_key
        assert rows[0].warnings == ()
        exported = box.export_certificate(rows[0], passphrase)
        assert _read_bundle(exported, passphrase) == (set(bundle.chain), bundle.key.private_numbers())
        assert len(box.read_certificates()) == held + 1, "exporting removes nothing"

    def test_assigning_serves_it_or_says_that_the_version_chooses(self, stand: Stand) -> None:
        bundle, passphrase = make_bundle(), Secret(HOSTILE)
        box = stand.open_with_api()
        box.import_certificate(bundle.to_pkcs12(passphrase), "site.p12", passphrase)
        row = next(row for row in box.read_certificates() if row.issued_to == NAME)
        assigned = box.assign_certificate(row, [stand.service])
        assert assigned == (stand.profile != "auto-select")
        assert stand.service in next(row for row in box.read_certificates() if row.issued_to == NAME).addresses

    def test_a_wrong_passphrase_sends_nothing(self, stand: Stand) -> None:
        box = stand.open_with_api()
        with pytest.raises(RejectedError, match="Nothing was sent"):
            box.import_certificate(make_bundle().to_pkcs12(Secret("right")), "site.p12", Secret("wrong"))

    def test_what_the_box_refuses_is_an_error(self, stand: Stand) -> None:
        box = stand.open_with_api()
        with stand.faulty("refuse-certificates"), pytest.raises(RejectedError):
            box.import_certificate(make_bundle().to_pkcs12(Secret("x")), "site.p12", Secret("x"))


class TestNetwork:
    language = "en"  # on the virtual machine

    def test_addresses_are_added_disabled_and_enabled(self, stand: Stand) -> None:
        box = stand.open_with_api()
        for wanted in (
            BoxAddress(stand.spare, 24, enabled=True),
            BoxAddress(stand.spare, 24, enabled=False),
            BoxAddress(stand.spare, 16, enabled=True),
        ):
            box.ensure_address(wanted)
            box.ensure_address(wanted)
            assert wanted in box.read_addresses()

    def test_what_was_prepared_changes_with_the_call_whatever_was_done_to_others_in_between(self, stand: Stand) -> None:
        box = stand.open_with_api()
        on, off = (BoxAddress(stand.spare, 24, enabled=enabled) for enabled in (True, False))
        box.ensure_address(on)
        other = next(row for row in box.read_addresses() if row.address not in (stand.admin, stand.spare))
        change, again = box.prepare_address(off), box.prepare_address(replace(other, enabled=not other.enabled))
        assert on in box.read_addresses()
        change()
        again()
        assert off in box.read_addresses()
        assert replace(other, enabled=not other.enabled) in box.read_addresses()
        box.ensure_address(other)

    def test_the_administration_address_stays(self, stand: Stand) -> None:
        box = stand.open_with_api()
        before = box.read_addresses()
        with pytest.raises(RefusedError):
            box.ensure_address(replace(next(row for row in before if row.address == stand.admin), enabled=False))
        assert box.read_addresses() == before


class TestPackages:
    language = "es"  # on the virtual machine

    def test_the_whole_path_is_installed_prerequisite_by_prerequisite(self, new_stand: Stand) -> None:
        box = new_stand.settle(users=3)
        box.ensure_update_server(new_stand.update_server)
        box.ensure_update_server(new_stand.update_server)
        content, installed = box.read_content(), []
        while ready := [offer for offer in box.read_offers() if not offer.missing]:
            with pytest.raises(RefusedError, match="EULA"):
                box.install_offer(ready[0], progress=Silent(), accept_eula=False)
            installed.append(box.install_offer(ready[0], progress=Silent(), accept_eula=True))
            box.install_offer(ready[0], progress=Silent(), accept_eula=True)
        assert box.read_versions() == (Version("5.3.0", "53118"), Version("22.1.4", "62304"))
        assert len(installed) >= 3
        assert box.read_content().users == content.users

    def test_what_lacks_a_prerequisite_is_listed_and_not_installed(self, stand: Stand) -> None:
        box = stand.open_with_api()
        greyed = [offer for offer in box.read_offers() if offer.missing]
        assert greyed
        assert {offer.kind for offer in greyed} <= set(PackageKind)
        with pytest.raises(PackageRefusedError):
            box.install_offer(greyed[-1], progress=Silent(), accept_eula=True)

    def test_a_download_key_is_shown_and_masked(self, stand: Stand) -> None:
        key = stand.open_with_api().read_download_key()
        assert key is not None
        assert len(key.reveal()) > 10
        assert key.reveal() not in repr(key)

    def test_a_package_from_a_file_is_installed_once(self, stand: Stand) -> None:
        box = stand.open_with_api()
        offer = next(offer for offer in box.read_offers() if not offer.missing)
        path = stand.vendor / "packages" / f"{offer.kind.value}-{offer.version}.pkg"
        with pytest.raises(RefusedError, match="EULA"):
            box.install_file(path, progress=Silent(), accept_eula=False)
        for _ in range(2):
            assert box.install_file(path, progress=Silent(), accept_eula=True) == Version(offer.version, offer.build)

    def test_an_altered_package_is_refused(self, stand: Stand, tmp_path: Path) -> None:
        box = stand.open_with_api()
        before = box.read_versions()
        offer = next(offer for offer in box.read_offers() if not offer.missing)
        raw = (stand.vendor / "packages" / f"{offer.kind.value}-{offer.version}.pkg").read_bytes()
        altered = tmp_path / "altered.pkg"
        altered.write_bytes(raw.replace(b'"build"', b'"built"', 1) if raw.count(b'"build"') else raw[:-40])
        with pytest.raises(RejectedError):
            box.install_file(altered, progress=Silent(), accept_eula=True)
        assert box.read_versions() == before

    def test_an_installation_that_fails_is_an_error_and_may_be_retried(self, stand: Stand) -> None:
        box = stand.open_with_api()
        offer = next(offer for offer in box.read_offers() if not offer.missing)
        with stand.faulty("install-fails"), pytest.raises(PackageRefusedError):
            box.install_offer(offer, progress=Silent(), accept_eula=True)
        assert box.install_offer(offer, progress=Silent(), accept_eula=True) == Version(offer.version, offer.build)


class TestPower:
    language = "en"  # on the virtual machine

    def test_reset_proof_and_shutdown(self, new_stand: Stand) -> None:
        box = new_stand.settle(users=3, sessions=5, file_items=2, jump_clients=2, **make_bundle().to_seed())
        before = box.read_identity()
        pinned = replace(new_stand.endpoint, pins=(before.tls_spki_sha256,))
        calls: list[str] = []
        new_stand.open(OWN, endpoint=pinned).reset_to_factory(before, lambda: calls.append("guard"))
        assert calls == ["guard"]
        with pytest.raises(WrongKeyError):
            new_stand.open(OWN, endpoint=pinned).read_identity()
        first = new_stand.open(OWN, endpoint=pinned).verify_reset(before, FACTORY)
        again = new_stand.open(OWN, endpoint=pinned).verify_reset(before, FACTORY)
        assert first.identity == again.identity
        assert first.identity.guid != before.guid
        assert first.identity.serial == before.serial
        new_stand.open(OWN, endpoint=pinned).shut_down(first.identity)
        assert not new_stand.is_running()
        new_stand.open(OWN, endpoint=pinned).shut_down(first.identity)

    @pytest.mark.parametrize("name", ["guid", "serial", "hostname", "tls_spki_sha256"])
    def test_another_box_is_not_touched(self, stand: Stand, name: str) -> None:
        box = stand.settle(users=3)
        now = box.read_identity()
        other = replace(now, **{name: "another"})
        with pytest.raises(ChangedError):
            box.reset_to_factory(other, lambda: None)
        if name != "tls_spki_sha256":
            with pytest.raises(ChangedError):
                box.shut_down(other)
        with pytest.raises((WrongBoxError, WrongKeyError)):
            stand.open(OWN, endpoint=replace(stand.endpoint, pins=("00" * 32,))).reset_to_factory(now, lambda: None)
        assert stand.open().read_identity() == now
        assert stand.is_running()

    def test_the_guard_has_the_last_word(self, stand: Stand) -> None:
        box = stand.settle(users=3)
        now = box.read_identity()

        def refuse() -> None:
            raise RefusedError("not yet")

        with pytest.raises(RefusedError, match="not yet"):
            box.reset_to_factory(now, refuse)
        assert box.read_identity() == now

    def test_a_reset_that_did_not_happen_is_not_believed(self, stand: Stand) -> None:
        box = stand.settle(users=3, sessions=5)
        now = box.read_identity()
        with pytest.raises(RejectedError):
            box.verify_reset(now, Credentials(OWN.site, Account("admin", OWN.appliance.password)))
        assert stand.open(OWN).read_identity() == now


def verify_clock(read: ClockReading, true: ClockReading) -> None:
    """Both say within which seconds the offset lies, so that the two must meet; a reading that leaves everything open is none."""
    assert abs(read.offset - true.offset) <= read.uncertainty + true.uncertainty + SLEW, (read, true)
    assert read.uncertainty < 10, read
    assert true.uncertainty < 10, true


def _counts(content: SiteContent) -> tuple[int, ...]:
    named = (content.users, content.sessions, content.recordings, content.files, content.jump_clients)
    return tuple(-1 if part is None else len(part) for part in named)


def _read_bundle(content: bytes, passphrase: Secret) -> tuple[set[object], object]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

    if b"-----BEGIN " in content:
        return set(x509.load_pem_x509_certificates(content)), load_pem_private_key(
            content[content.index(b"-----BEGIN ENCRYPTED") :], passphrase.to_bytes()
        ).private_numbers()  # type: ignore[union-attr]
    key, leaf, more = pkcs12.load_key_and_certificates(content, passphrase.to_bytes())
    return {leaf, *more}, key.private_numbers()  # type: ignore[union-attr]
