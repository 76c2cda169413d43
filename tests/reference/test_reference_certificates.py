"""Certificates of the box: in, judged, bound to addresses, served, and out again."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from authority import Chain, issue, issue_chain
from browsing import Browser
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12
from OpenSSL import SSL
from reference_boxes import PASSWORD, SEED, Maker, look

from images.local_appliance import LocalAppliance

pytestmark = [pytest.mark.process, pytest.mark.network]
CERTIFICATES = "Security :: Certificates"


def served(address: str, port: int) -> list[bytes]:
    """What really comes over the wire there, in its order."""
    plain = socket.create_connection((address, port), 10)
    plain.settimeout(None)
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), plain)
    connection.set_connect_state()
    connection.do_handshake()
    chain = connection.get_peer_cert_chain(as_cryptography=True) or []
    connection.close()
    return [one.public_bytes(Encoding.DER) for one in chain]


def der(chain: Chain) -> list[bytes]:
    return [one.certificate.public_bytes(Encoding.DER) for one in chain.all]


@pytest.fixture
def box(make_box: Maker) -> LocalAppliance:
    return make_box()


@pytest.fixture
def browser(box: LocalAppliance) -> Browser:
    return Browser(box.url, "appliance").first_login(PASSWORD).follow("Security", "Certificates")


def upload(browser: Browser, content: bytes, passphrase: str = "") -> Browser:
    browser.follow("Security", "Certificates")
    return browser.fill("Upload", {"Passphrase": passphrase}, files={"Certificate or Key File": ("site.pem", content)})


def row_of(browser: Browser, name: str = "support.example.test") -> dict[str, Any]:
    browser.follow("Security", "Certificates")
    return next(one for one in browser.rows(CERTIFICATES) if one["Issued To"].text_content() == name)


def assign(browser: Browser, *addresses: str) -> Browser:
    browser.open(row_of(browser)["Actions"].xpath(".//a/@href")[0])
    rows = browser.rows("Security :: Certificates :: Assign IP")
    ticks = tuple(browser.tick_in(row) for row in rows if row["IP Address"].text_content() in addresses)
    for row in rows:
        browser.tick_in(row).attrib.pop("checked", None)
    return browser.fill("Save Configuration", {}, ticks=ticks)


def export(browser: Browser, passphrase: str, **ticks: bool) -> bytes:
    browser.fill("Go", {"Action": "Export"}, ticks=(browser.tick_in(row_of(browser)),))
    assert browser.title == "Security :: Certificates :: Export"
    browser.fill("Export", {"Passphrase": passphrase, **{name.replace("_", " "): value for name, value in ticks.items()}})
    content: bytes = browser.answer.content
    browser.open("/appliance")
    return content


def test_a_chain_is_served_in_the_given_order_on_the_assigned_address_only(box: LocalAppliance, browser: Browser) -> None:
    chain = issue_chain()
    before = served(box.admin, box.port)
    upload(browser, chain.pem + chain.leaf.key_pem(PASSWORD), PASSWORD)
    assert browser.notice == "The certificate support.example.test was imported."
    assert assign(browser, box.service[0]).notice == "The configuration was saved."
    assert served(box.service[0], box.port) == der(chain)
    assert served(box.admin, box.port) == before
    assert row_of(browser)["IP addresses"].text_content() == box.service[0]
    assign(browser)
    assert served(box.service[0], box.port) == before


def test_pkcs12_comes_in_whole(box: LocalAppliance, browser: Browser) -> None:
    chain = issue_chain()
    upload(browser, chain.p12(PASSWORD), PASSWORD)
    assert browser.notice
    assign(browser, box.service[0])
    assert served(box.service[0], box.port) == der(chain)


def test_the_key_may_stand_first_and_the_leaf_last(box: LocalAppliance, browser: Browser) -> None:
    chain = issue_chain()
    upload(browser, chain.leaf.key_pem() + chain.outer.pem + chain.inner.pem + chain.leaf.pem)
    assign(browser, box.service[0])
    wanted = [one.certificate.public_bytes(Encoding.DER) for one in (chain.leaf, chain.outer, chain.inner)]
    assert served(box.service[0], box.port) == wanted, "the order of the rest is kept as it was given"


def test_certificate_first_and_key_later_become_one(browser: Browser) -> None:
    chain = issue_chain()
    upload(browser, chain.pem)
    assert row_of(browser)["Private Key"].text_content() == "No"
    upload(browser, chain.leaf.key_pem())
    assert row_of(browser)["Private Key"].text_content() == "Yes"
    assert len(browser.rows(CERTIFICATES)) == 2


@pytest.mark.parametrize(
    ("content", "passphrase", "sentence"),
    [
        (lambda chain: chain.pem + chain.leaf.key_pem(PASSWORD), "wrong", "the passphrase is wrong"),
        (lambda chain: chain.pem + chain.leaf.key_pem(PASSWORD), "", "its passphrase is needed"),
        (lambda chain: chain.p12(PASSWORD), "wrong", "the passphrase is wrong"),
        (lambda chain: chain.pem + issue("other").key_pem(), "", "does not belong to any certificate in the file"),
        (lambda chain: issue("other").key_pem(), "", "does not belong to any certificate of this appliance"),
        (lambda chain: chain.leaf.key_pem() + chain.root.key_pem(), "", "more than one private key"),
        (lambda chain: b"\x00\x01 nothing", "", "neither a certificate nor a private key"),
        (lambda chain: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", "damaged"),
    ],
)
def test_a_file_that_will_not_do_is_refused_in_a_sentence(browser: Browser, content: Any, passphrase: str, sentence: str) -> None:
    upload(browser, content(issue_chain()), passphrase)
    assert browser.answer.status_code == 422
    assert sentence in browser.error
    assert len(browser.rows(CERTIFICATES)) == 1


def test_warnings_say_what_is_wrong_with_a_certificate(box: LocalAppliance, browser: Browser) -> None:
    box.seed(SEED)  # gives the site its public host name
    browser = look(box, "appliance")
    good, expired, early = issue_chain(), issue_chain("old.example.test", ends=-1, starts=-9), issue_chain("new.example.test", starts=5)
    for chain in (good, expired, early):
        upload(browser, chain.pem + chain.leaf.key_pem())
    lonely = issue("lonely.example.test", issue("Nobody"), names=("support.example.test",))
    upload(browser, lonely.pem + lonely.key_pem())
    shown = {row["Issued To"]: row["Warnings"] for row in browser.follow("Security", "Certificates").texts(CERTIFICATES)}
    assert shown["support.example.test"] == ""
    assert shown["old.example.test"] == "Expired · Does not cover support.example.test"
    assert shown["new.example.test"] == "Not yet valid · Does not cover support.example.test"
    assert shown["lonely.example.test"] == "The certificate chain is incomplete"
    box.fault("clock", str(100 * 86400))
    assert row_of(look(box, "appliance"))["Warnings"].text_content() == "Expired"


def test_a_gap_in_the_middle_of_the_chain_is_a_warning(browser: Browser) -> None:
    chain = issue_chain()
    upload(browser, chain.leaf.pem + chain.inner.pem + chain.root.pem + chain.leaf.key_pem())
    assert row_of(browser)["Warnings"].text_content() == "The certificate chain is incomplete"


def test_pem_export_keeps_order_and_seals_the_key(browser: Browser) -> None:
    chain = issue_chain()
    upload(browser, chain.pem + chain.leaf.key_pem())
    content = export(browser, PASSWORD, Certificate=True, Private_Key=True, Certificate_Chain=True)
    assert [one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(content)] == der(chain)
    key = load_pem_private_key(content[content.index(b"-----BEGIN ENCRYPTED PRIVATE KEY") :], PASSWORD.encode())
    assert key.private_numbers() == chain.leaf.key.private_numbers()
    with pytest.raises(ValueError):
        load_pem_private_key(content[content.index(b"-----BEGIN ENCRYPTED PRIVATE KEY") :], b"wrong")


def test_ticks_choose_what_is_exported(browser: Browser) -> None:
    chain = issue_chain()
    upload(browser, chain.pem + chain.leaf.key_pem())
    assert export(browser, "", Certificate=True) == chain.leaf.pem
    assert export(browser, "", Certificate_Chain=True) == b"".join(one.pem for one in chain.all[1:])
    browser.fill("Go", {"Action": "Export"}, ticks=(browser.tick_in(row_of(browser)),))
    browser.press("Export")
    assert browser.error == "Tick what shall be exported."
    assert row_of(browser)["Private Key"].text_content() == "Yes", "exporting removes nothing"


def test_newer_versions_choose_by_themselves_and_export_pkcs12(make_box: Maker) -> None:
    box = make_box("auto-select")
    browser = Browser(box.url, "appliance").first_login(PASSWORD)
    chain = issue_chain()
    upload(browser, chain.pem + chain.leaf.key_pem())
    assert served(box.service[0], box.port) == der(chain)
    assert served(box.admin, box.port) == der(chain)
    assert "Actions" not in row_of(browser)
    content = export(browser, PASSWORD, Certificate=True, Private_Key=True, Certificate_Chain=True)
    key, leaf, more = pkcs12.load_key_and_certificates(content, PASSWORD.encode())
    assert key is not None
    assert [one.public_bytes(Encoding.DER) for one in (leaf, *more) if one] == der(chain)


def test_a_certificate_in_use_and_the_factorys_own_cannot_be_deleted(box: LocalAppliance, browser: Browser) -> None:
    chain = issue_chain()
    upload(browser, chain.pem + chain.leaf.key_pem())
    assign(browser, box.service[0])
    browser.fill("Go", {"Action": "Delete"}, ticks=(browser.tick_in(row_of(browser)),))
    assert browser.error == f"The certificate is in use on {box.service[0]}."
    factory = next(row for row in browser.rows(CERTIFICATES) if row["Issued To"].text_content().startswith("appliance-"))
    browser.fill("Go", {"Action": "Delete"}, ticks=(browser.tick_in(factory),))
    assert browser.error == "The factory certificate cannot be deleted."
    assign(browser)
    browser.fill("Go", {"Action": "Delete"}, ticks=(browser.tick_in(row_of(browser)),))
    assert browser.notice == "The certificate was deleted."
    assert len(browser.rows(CERTIFICATES)) == 1


def test_a_certificate_without_key_has_no_assign_link(browser: Browser) -> None:
    upload(browser, issue_chain().pem)
    assert not row_of(browser)["Actions"].xpath(".//a")


def test_keys_on_the_disk_are_private(box: LocalAppliance, browser: Browser) -> None:
    chain = issue_chain()
    upload(browser, chain.pem + chain.leaf.key_pem())
    found = [path for path in box.root.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert found
    assert {oct(path.stat().st_mode & 0o777) for path in found} == {"0o600"}


def test_the_certificate_survives_a_restart_and_no_restore_touches_it(box: LocalAppliance) -> None:
    chain = issue_chain()
    box.seed({**SEED, "certificate_pem": chain.pem.decode(), "key_pem": chain.leaf.key_pem().decode()})
    assert served(box.service[0], box.port) == der(chain)
    site = look(box, "login").follow("Management", "Software Management")
    site.press("Download Backup")
    assert chain.leaf.key_pem() not in site.answer.content
    box.stop()
    box.start()
    assert served(box.service[0], box.port) == der(chain)
