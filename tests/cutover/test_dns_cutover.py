"""The DNS cutover against a real BIND."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.tsig
import dns.update
import pytest
from conftest_cutover import NEW, OLD, SITE, Serve, make_cutover, make_key, make_plan

import migrate.cutover.dns as module
from kit.errors import ChangedError, DeadlineError, RefusedError, RejectedError, UnreachableError, from_record
from migrate.cutover.contract import Change, CutoverState, Preparation, Side
from migrate.cutover.dns import DnsCutover
from migrate.cutover.dns_values import (
    DnsAnswerError,
    DnsChangedError,
    DnsKeyRefusedError,
    DnsRecordError,
    DnsUnreachableError,
    DnsUpdateRefusedError,
    DnsZoneError,
    Move,
    NameServer,
    TsigAlgorithm,
)
from migrate.cutover.dns_wire import ask
from migrate.demo.nameserver import DemoNameServer

pytestmark = [pytest.mark.process, pytest.mark.network]

RECORD = f"support 300 A {OLD}"


def change_as_somebody_else(server: DemoNameServer, address: str, ttl: int = 300) -> None:
    update = dns.update.UpdateMessage(server.zone)
    update.replace(dns.name.from_text(SITE), ttl, "A", address)
    key = server.key
    update.use_tsig(dns.tsig.Key(key.name, key.secret.reveal(), key.algorithm.value), algorithm=key.algorithm.value)
    answer = dns.query.tcp(update, server.primary.address, port=server.primary.port, timeout=5)
    assert answer.rcode() == 0


def shown(server: DemoNameServer, kind: str = "A") -> tuple[tuple[str, ...], int]:
    answer = ask(server.primary, dns.name.from_text(SITE), kind, timeout=2)
    return answer.values, answer.ttl


def test_a_whole_cutover_is_seen_on_every_authoritative_server_and_leaves_the_old_ttl(serve: Serve) -> None:
    server = serve("support 2 A 127.0.0.11", secondary=True)
    cutover = make_cutover(server, ttl=1)

    before = cutover.verify_ready()
    assert (before.side, before.ttls, len(before.witnesses)) == (Side.OLD, (2,), 2)

    preparation = cutover.prepare(before)
    assert (preparation.old_ttls, preparation.ttls) == ((2,), (1,))
    settled = cutover.wait_until_settled(preparation)
    assert settled.read_at >= preparation.at + 2

    change = cutover.switch()
    assert (change.side, change.acted) == (Side.NEW, True)
    assert cutover.wait_until_settled(change).side is Side.NEW
    assert [witness.shows for witness in cutover.read_state().witnesses] == [(NEW,), (NEW,)]

    restored = cutover.restore(preparation)
    assert (restored.side, restored.ttls) == (Side.NEW, (2,))


def test_switching_back_points_at_the_old_box_again(serve: Serve) -> None:
    server = serve(RECORD, secondary=True)
    cutover = make_cutover(server)
    preparation = cutover.prepare()
    cutover.switch()
    back = cutover.switch_back()
    assert (back.side, back.acted) == (Side.OLD, True)
    assert cutover.seconds_to_recover() == 3
    cutover.restore(preparation)
    assert shown(server) == ((OLD,), 300)


def test_a_way_back_after_the_ttl_is_restored_is_said_to_take_long(serve: Serve) -> None:
    cutover = make_cutover(serve(RECORD))
    preparation = cutover.prepare()
    cutover.switch()
    cutover.restore(preparation)
    assert cutover.switch_back().ttls == (300,)
    assert cutover.seconds_to_recover() == 301


def test_an_ipv4_and_an_ipv6_address_move_together_with_their_own_ttls(serve: Serve) -> None:
    server = serve(RECORD, "support 600 AAAA fd00::0011")
    cutover = make_cutover(server, moves=(Move(OLD, NEW), Move("fd00:0::11", "fd00::12")))
    before = cutover.verify_ready()
    preparation = cutover.prepare(before)
    assert preparation.old_ttls == (300, 600)
    assert preparation.settles_at == preparation.at + 600
    cutover.switch()
    cutover.restore(preparation)
    assert shown(server) == ((NEW,), 300)
    assert shown(server, "AAAA") == (("fd00::12",), 600)


def test_checking_readiness_changes_nothing_at_all(serve: Serve) -> None:
    server = serve(RECORD)
    zone = dns.name.from_text(server.zone)
    before = ask(server.primary, zone, "SOA", timeout=2)
    make_cutover(server).verify_ready()
    assert ask(server.primary, zone, "SOA", timeout=2) == before


@pytest.mark.parametrize("algorithm", list(TsigAlgorithm))
def test_every_algorithm_that_is_offered_works_with_bind(serve: Serve, algorithm: TsigAlgorithm) -> None:
    server = serve(RECORD, key=make_key(algorithm))
    cutover = make_cutover(server)
    cutover.verify_ready()
    assert cutover.switch().acted


# after a crash


def test_preparing_again_after_a_crash_keeps_the_ttl_of_before(serve: Serve) -> None:
    cutover = make_cutover(serve(RECORD))
    before = cutover.read_state()
    cutover.prepare(before)
    again = cutover.prepare(before)
    assert (again.old_ttls, again.ttls) == ((300,), (2,))


def test_switching_again_after_a_crash_does_nothing_twice(serve: Serve) -> None:
    server = serve(RECORD)
    make_cutover(server).switch()
    serial = ask(server.primary, dns.name.from_text(server.zone), "SOA", timeout=2)
    again = make_cutover(server).switch()
    assert (again.side, again.acted) == (Side.NEW, False)
    assert ask(server.primary, dns.name.from_text(server.zone), "SOA", timeout=2) == serial


def test_an_update_whose_answer_was_lost_is_found_done_at_the_next_try(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(RECORD)
    real = dns.query.tcp

    def lose_answer(*args: object, **settings: object) -> None:
        real(*args, **settings)
        raise dns.exception.Timeout

    monkeypatch.setattr(dns.query, "tcp", lose_answer)
    with pytest.raises(DnsUnreachableError):
        make_cutover(server).switch()
    monkeypatch.setattr(dns.query, "tcp", real)
    assert make_cutover(server).switch().acted is False
    assert shown(server) == ((NEW,), 300)


def test_a_resumed_wait_lasts_only_for_what_is_left_of_the_old_ttl(serve: Serve) -> None:
    server = serve(RECORD)
    now = [time.time()]
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    preparation = make_cutover(server).prepare()
    stored = Preparation(preparation.old_ttls, preparation.ttls, at=now[0] - 288)
    resumed = DnsCutover(make_plan(server), clock=lambda: now[0], nap=nap)
    resumed.wait_until_settled(stored)
    assert sum(naps) == pytest.approx(12)
    naps.clear()
    resumed.wait_until_settled(stored)
    assert naps == []


# somebody else


def test_a_record_that_somebody_else_changed_in_between_is_not_overwritten(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(RECORD)
    real = module.send_update

    def be_late(*args: object, **settings: object) -> None:
        change_as_somebody_else(server, "127.0.0.99")
        real(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "send_update", be_late)
    with pytest.raises(DnsChangedError, match=r"somebody else.*127\.0\.0\.99.*not overwritten"):
        make_cutover(server).switch()
    assert shown(server) == (("127.0.0.99",), 300)


@pytest.mark.parametrize("verb", ["switch", "switch_back", "prepare"])
def test_nothing_is_done_to_a_record_that_points_elsewhere(serve: Serve, verb: str) -> None:
    server = serve("support 300 A 127.0.0.99")
    with pytest.raises(ChangedError, match=r"127\.0\.0\.99, neither to the old box nor to the new"):
        getattr(make_cutover(server), verb)()
    assert shown(server) == (("127.0.0.99",), 300)


def test_a_ttl_that_is_raised_again_while_waiting_is_noticed(serve: Serve) -> None:
    server = serve("support 2 A 127.0.0.11")
    cutover = make_cutover(server, ttl=1)
    preparation = cutover.prepare()
    change_as_somebody_else(server, OLD, ttl=900)
    with pytest.raises(DnsChangedError, match="raised again, to 900 s"):
        cutover.wait_until_settled(preparation)


def test_a_name_that_moves_away_after_the_switch_is_noticed(serve: Serve) -> None:
    server = serve("support 1 A 127.0.0.11")
    cutover = make_cutover(server)
    change = cutover.switch()
    change_as_somebody_else(server, "127.0.0.99")
    with pytest.raises(DnsChangedError, match="no longer points"):
        cutover.wait_until_settled(change)


# refusals before anything is done


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (["support 300 CNAME other.example.test.", "other 300 A 127.0.0.11"], r"alias \(CNAME\) of other\.example\.test"),
        ([RECORD, "support 300 A 127.0.0.10"], "several A records"),
        (["elsewhere 300 A 127.0.0.11"], "no A record"),
        (["support 300 A 127.0.0.99"], "does not point to the old box"),
        ([f"support 300 A {NEW}"], "does not point to the old box"),
        ([RECORD, "support 300 AAAA fd00::11"], "AAAA record fd00::11, which the plan does not move"),
        ([f"* 300 A {OLD}"], "a wildcard answers for it"),
    ],
    ids=["alias", "several", "none", "elsewhere", "new-already", "other-family", "wildcard"],
)
def test_a_record_that_cannot_be_switched_is_refused_with_its_reason(serve: Serve, records: list[str], words: str) -> None:
    with pytest.raises(DnsRecordError, match=words) as caught:
        make_cutover(serve(*records)).verify_ready()
    assert caught.value.hint
    assert isinstance(caught.value, RefusedError)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "stranger"}, "BADKEY"),
        ({"algorithm": TsigAlgorithm.HMAC_SHA512}, "BADKEY"),
        ({"secret": make_key(name="x").secret.__class__("c29tZXRoaW5nIGVsc2U=")}, "BADSIG"),
    ],
    ids=["name", "algorithm", "secret"],
)
def test_a_key_that_the_server_refuses_is_a_clear_error(serve: Serve, change: dict[str, object], said: str) -> None:
    server = serve(RECORD)
    with pytest.raises(DnsKeyRefusedError, match=said) as caught:
        make_cutover(server, key=replace(server.key, **change)).verify_ready()
    assert isinstance(caught.value, RejectedError)
    assert caught.value.hint
    assert caught.value.facts["said"] == said


def test_a_clock_that_is_off_is_told_apart_from_a_wrong_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(RECORD)
    monkeypatch.setattr(dns.message, "time", SimpleNamespace(time=lambda: time.time() - 4000))
    with pytest.raises(DnsKeyRefusedError, match="BADTIME") as caught:
        make_cutover(server).verify_ready()
    assert "clock" in caught.value.hint


def test_a_key_without_the_right_is_told_apart_from_an_unknown_key(serve: Serve) -> None:
    server = serve(RECORD, policy="allow-update { none; };")
    with pytest.raises(DnsUpdateRefusedError, match=r"does not let the key cutover change this record \(REFUSED\)"):
        make_cutover(server).verify_ready()


def test_a_key_that_may_change_other_names_only_is_refused(serve: Serve) -> None:
    server = serve(RECORD, policy="update-policy { grant cutover name other.example.test. A; };")
    with pytest.raises(DnsUpdateRefusedError):
        make_cutover(server).verify_ready()


def test_a_secondary_that_is_given_as_the_server_for_updates_is_refused(serve: Serve) -> None:
    server = serve(RECORD, secondary=True)
    with pytest.raises(DnsUpdateRefusedError, match="does not let") as caught:
        make_cutover(server, server=server.secondary).verify_ready()
    assert "primary" in caught.value.hint


def test_an_answer_that_is_not_signed_proves_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(RECORD)

    def answer_unsigned(query: dns.message.Message, *_: object, **__: object) -> dns.message.Message:
        response = dns.update.UpdateMessage(server.zone, id=query.id)
        response.flags |= dns.flags.QR
        return response

    monkeypatch.setattr(dns.query, "tcp", answer_unsigned)
    with pytest.raises(DnsAnswerError, match="does not sign it"):
        make_cutover(server).switch()


def test_a_server_that_does_not_serve_the_zone_is_refused(serve: Serve) -> None:
    server = serve(RECORD)
    with pytest.raises(DnsZoneError, match=r"does not serve the zone of support\.example\.com"):
        make_cutover(server, name="support.example.com").verify_ready()


def test_a_zone_that_is_not_the_one_that_holds_the_name_is_refused(serve: Serve) -> None:
    server = serve("support.branch 300 A 127.0.0.11")
    with pytest.raises(DnsZoneError, match=r"does not serve a zone branch\.example\.test"):
        make_cutover(server, name="support.branch.example.test", zone="branch.example.test").verify_ready()
    make_cutover(server, name="support.branch.example.test").verify_ready()


def test_a_server_that_does_not_answer_is_a_clear_error(serve: Serve) -> None:
    server = serve(RECORD)
    server.stop()
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        make_cutover(server, timeout=0.3).verify_ready()
    assert caught.value.hint


def test_a_name_server_whose_address_is_not_known_is_not_taken_for_agreeing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_look_up", lambda *_: ())
    server = serve(RECORD, "@ 300 NS ns.nowhere.invalid.")
    with pytest.raises(DnsAnswerError, match=r"ns\.nowhere\.invalid cannot be found"):
        make_cutover(server).read_state()


def test_a_name_servers_address_is_taken_from_the_zone_where_the_plan_gives_none(serve: Serve) -> None:
    server = serve(RECORD)
    addresses = make_cutover(server, authoritative=()).servers
    assert addresses == (server.primary, NameServer("127.0.0.1", 53, "ns1.example.test"))


# secondaries


def test_a_secondary_that_is_down_is_not_taken_for_agreeing(serve: Serve) -> None:
    server = serve(RECORD, secondary=True)
    assert server.secondary is not None
    server.stop_one(server.secondary)
    with pytest.raises(DnsUnreachableError, match=r"ns2\.example\.test"):
        make_cutover(server, timeout=0.3).verify_ready()


def test_a_secondary_that_does_not_follow_is_named_at_the_deadline(serve: Serve) -> None:
    server = serve(RECORD, secondary=True, notify=False)
    with pytest.raises(DeadlineError, match=r"ns2\.example\.test .* shows 127\.0\.0\.11"):
        make_cutover(server, spread_timeout=1.5).switch()
    state = make_cutover(server).read_state()
    assert state.side is Side.SPLIT


def test_a_secondary_that_comes_back_late_is_waited_for(serve: Serve) -> None:
    server = serve(RECORD, secondary=True)
    assert server.secondary is not None
    server.stop_one(server.secondary)
    with pytest.raises(DeadlineError):
        make_cutover(server, timeout=0.3, spread_timeout=1).switch()
    server.start_one(server.secondary)
    assert make_cutover(server).switch().side is Side.NEW


# values


def test_estimates_are_told_without_asking_anybody() -> None:
    plan = make_plan(SimpleNamespace(primary=NameServer("127.0.0.1", 9), key=make_key(), servers=()), ttl=30)  # type: ignore[arg-type]
    cutover = DnsCutover(plan)
    assert cutover.seconds_to_recover() == 31
    assert cutover.outage_estimate() == 31


def test_moments_are_small_values_that_can_be_stored() -> None:
    preparation = Preparation((300,), (30,), at=1000.0)
    change = Change(Side.NEW, 2000.0, 2001.0, (30,), acted=True)
    assert (preparation.settles_at, change.settles_at) == (1300.0, 2031.0)
    assert CutoverState(Side.OLD, (), (), 0.0).ttl == 0


def test_the_secret_is_in_no_error_and_in_no_log(serve: Serve) -> None:
    server = serve(RECORD)
    secret = server.key.secret.reveal()
    with pytest.raises(DnsKeyRefusedError) as caught:
        make_cutover(server, key=replace(server.key, name="stranger")).verify_ready()
    assert secret not in repr(caught.value) + str(caught.value.to_record()) + repr(make_plan(server))
    assert secret not in (server.folder / "primary" / "named.log").read_text()
    again = from_record(caught.value.to_record())
    assert type(again) is DnsKeyRefusedError
