"""Order, completion, and which way up is taken where several lead there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from certs_making import HOST, NOW, Issued, issue, new_key

from certs.aia import fetch_issuers
from certs.bundle import Contents, Trust
from certs.cert import Cert
from certs.chain import assemble, find_paths
from certs.diagnose import diagnose
from certs.errors import NoAnswerError, NoCertificateError
from certs.read import read_bundle
from certs.roots import NO_ROOTS, Roots, read_roots, system_roots


def heap(*issued: Issued) -> Contents:
    return Contents(certs=tuple(each.cert for each in issued))


def test_the_root_is_known_given_or_unknown(world):
    assert assemble(heap(world.leaf, world.middle), roots=world.roots).trust is Trust.SYSTEM
    assert assemble(heap(world.leaf, world.middle, world.root), roots=NO_ROOTS).trust is Trust.GIVEN
    assert assemble(heap(world.leaf, world.middle), roots=NO_ROOTS).trust is Trust.UNKNOWN
    assert assemble(heap(issue(HOST)), roots=NO_ROOTS).trust is Trust.SELF_SIGNED


def test_a_leaf_alone_is_completed_from_local_intermediates(world):
    bundle = assemble(heap(world.leaf), roots=world.roots, intermediates=[world.middle.cert])
    assert bundle.certs == (world.leaf.cert, world.middle.cert)
    assert bundle.is_complete


def test_the_root_is_never_part_of_the_chain(world):
    bundle = assemble(heap(world.leaf, world.middle, world.root), roots=world.roots)
    assert world.root.cert not in bundle.certs
    assert bundle.path[-1] == world.root.cert


def test_an_intermediate_of_the_right_name_and_the_wrong_key_is_not_taken(world):
    impostor = issue("Test Intermediate", world.root, ca=True)
    bundle = assemble(heap(world.leaf, impostor, world.middle), roots=world.roots)
    assert bundle.chain == (world.middle.cert,)
    assert impostor.cert in bundle.others


def test_names_that_differ_in_case_and_spaces_are_the_same_issuer():
    from cryptography import x509

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    root = issue("Some  Root", ca=True, subject=name("Some  Root"))
    shouting = Issued(issue("some root", ca=True, key=root.key, subject=name("SOME ROOT")).certificate, root.key)
    leaf = issue(HOST, shouting)
    assert assemble(heap(leaf), roots=Roots([root.cert])).is_complete


def addtrust() -> tuple[Issued, Issued, Issued, Issued, Issued]:
    """2020-05-30: a cross-sign by an expired root stands beside a current root with the same key."""
    old_root = issue("AddTrust", ca=True, start=NOW - timedelta(days=7000), end=NOW - timedelta(days=1))
    key = new_key()
    new_root = issue("USERTrust", ca=True, key=key)
    cross = issue("USERTrust", old_root, ca=True, key=key, start=NOW - timedelta(days=7000), end=NOW - timedelta(days=1))
    middle = issue("Sectigo", new_root, ca=True)
    return old_root, new_root, cross, middle, issue(HOST, middle)


def test_an_expired_cross_sign_is_left_for_a_current_root():
    old_root, new_root, cross, middle, leaf = addtrust()
    bundle = assemble(heap(leaf, middle, cross, old_root), roots=Roots([old_root.cert, new_root.cert]))
    assert bundle.chain == (middle.cert,)
    assert bundle.root == new_root.cert
    assert cross.cert in bundle.others
    findings = diagnose(bundle, hostname=HOST)
    assert not [finding for finding in findings if finding.blocks]


def test_where_only_the_old_root_is_trusted_the_expiry_is_named():
    old_root, _, cross, middle, leaf = addtrust()
    bundle = assemble(heap(leaf, middle, cross), roots=Roots([old_root.cert]))
    codes = {finding.code for finding in diagnose(bundle, hostname=HOST)}
    assert {"issuer_expired", "root_expired"} <= codes


def test_a_path_that_outlives_the_leaf_is_preferred_and_the_other_is_shown():
    """DST Root X3, a month before its end: both ways are valid, one of them not for long."""
    dying = issue("DST Root X3", ca=True, end=NOW + timedelta(days=20))
    key = new_key()
    isrg = issue("ISRG Root X1", ca=True, key=key)
    cross = issue("ISRG Root X1", dying, ca=True, key=key, end=NOW + timedelta(days=20))
    middle = issue("R3", isrg, ca=True)
    leaf = issue(HOST, middle)
    bundle = assemble(heap(leaf, middle, cross), roots=Roots([dying.cert, isrg.cert]))
    assert bundle.root == isrg.cert
    only_dying = assemble(heap(leaf, middle, cross), roots=Roots([dying.cert]))
    assert only_dying.chain == (middle.cert, cross.cert)
    assert "issuer_ends_first" in {finding.code for finding in diagnose(only_dying, hostname=HOST)}


def test_alternative_paths_are_listed():
    first, second = issue("Root One", ca=True), issue("Root Two", ca=True)
    key = new_key()
    by_first, by_second = issue("Middle", first, ca=True, key=key), issue("Middle", second, ca=True, key=key)
    leaf = issue(HOST, by_first)
    bundle = assemble(heap(leaf, by_first, by_second), roots=Roots([first.cert, second.cert]))
    assert len(bundle.paths) == 1
    assert "other_paths" in {finding.code for finding in diagnose(bundle, hostname=HOST)}


def test_a_circle_of_authorities_ends():
    one_key, two_key = new_key(), new_key()
    one_alone, two_alone = issue("One", ca=True, key=one_key), issue("Two", ca=True, key=two_key)
    one, two = issue("One", two_alone, ca=True, key=one_key), issue("Two", one_alone, ca=True, key=two_key)
    leaf = issue(HOST, one_alone)
    bundle = assemble(heap(leaf, one, two), roots=NO_ROOTS)
    assert bundle.trust is Trust.UNKNOWN


def test_hundreds_of_authorities_of_one_name_end_in_time():
    root = issue("Root", ca=True)
    crowd = [issue("Same", root, ca=True) for _ in range(300)]
    leaf = issue(HOST, crowd[-1])
    assert find_paths(leaf.cert, [each.cert for each in crowd], Roots([root.cert]))[0].is_complete


def test_a_missing_issuer_is_named_with_everything_that_helps(world):
    from cryptography import x509

    where = x509.AuthorityInformationAccess(
        [x509.AccessDescription(x509.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.invalid/i.crt"))]
    )
    leaf = issue(HOST, world.middle, extra=[(where, False)])
    (finding,) = [each for each in diagnose(assemble(heap(leaf), roots=world.roots)) if each.code == "issuer_missing"]
    assert "CN=Test Intermediate" in finding.sentence
    assert leaf.cert.authority_key_id.hex() in finding.sentence
    assert "http://ca.invalid/i.crt" in finding.sentence
    fetched = fetch_issuers(leaf.cert, [], world.roots, fetch={"http://ca.invalid/i.crt": world.middle.der}.__getitem__)
    assert fetched == (world.middle.cert,)


def test_fetching_stops_where_an_answer_does_not_help(world):
    from cryptography import x509

    where = x509.AuthorityInformationAccess(
        [x509.AccessDescription(x509.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.invalid/i.crt"))]
    )
    leaf = issue(HOST, world.middle, extra=[(where, False)])
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return b"not found"

    assert fetch_issuers(leaf.cert, [], world.roots, fetch=fetch) == ()
    assert asked == ["http://ca.invalid/i.crt"]


@pytest.mark.network
@pytest.mark.parametrize("url", ["http://127.0.0.1:1/i.crt", "http://127.0.0.1:x/", "ftp://127.0.0.1/", "http://"])
def test_an_unanswered_fetch_is_an_error_of_ours(url):
    from certs.aia import fetch_over_http

    with pytest.raises(NoAnswerError):
        fetch_over_http(url)


def test_roots_are_read_from_a_folder_and_from_a_file(world, tmp_path):
    (tmp_path / "a.pem").write_bytes(world.root.pem)
    (tmp_path / "notes.txt").write_text("nothing here")
    assert read_roots(tmp_path).certs == (world.root.cert,)
    assert read_roots(tmp_path / "a.pem").find_same(world.root.cert) == world.root.cert


def test_this_machines_roots_are_read():
    roots = system_roots()
    assert len(roots) > 20
    assert all(isinstance(cert, Cert) for cert in roots.certs)


def test_an_empty_heap_is_an_error():
    with pytest.raises(NoCertificateError):
        read_bundle([])


def test_a_mesh_of_cross_signed_authorities_still_finds_the_one_good_way():
    """Five authorities that all signed each other; one alone has a certificate by a trusted root."""
    keys = [new_key() for _ in range(5)]
    alone = [issue(f"Mesh {number}", ca=True, key=key) for number, key in enumerate(keys)]
    root = issue("Mesh Root", ca=True)
    cross = [issue(f"Mesh {below}", alone[above], ca=True, key=keys[below]) for below in range(5) for above in range(5) if below != above]
    by_root = issue("Mesh 4", root, ca=True, key=keys[4])
    leaf = issue(HOST, alone[0])
    bundle = assemble(heap(leaf, *cross, by_root), roots=Roots([root.cert]))
    assert bundle.root == root.cert
    assert bundle.chain[-1] == by_root.cert
    assert len(bundle.chain) == 2
