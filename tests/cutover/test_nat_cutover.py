"""The NAT cutover against a real gateway: nftables and sshd in network namespaces, boxes behind it, visitors before it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from gateway_stand import (
    ADMIN_SIDE,
    ELSE,
    GATEWAY_SIDE,
    HERE,
    NEW,
    NEW6,
    OLD,
    OLD6,
    PORT,
    PUBLIC,
    PUBLIC6,
    RULES,
    GatewayStand,
    Space,
    read_lines,
)

from kit.errors import RejectedError, UnreachableError, UsageError
from kit.process import Child
from kit.secret import Secret
from kit.waiting import wait_for
from migrate.cutover.contract import Side
from migrate.cutover.nat_values import NatAnswerError, NatChangedError, NatForbiddenError, NatRuleError
from migrate.cutover.ssh import GatewayKeyError, GatewayLoginError, GatewayUnreachableError, Said, SshPlace

pytestmark = [pytest.mark.process, pytest.mark.network]


def test_only_the_address_of_the_one_rule_changes(gateway: GatewayStand) -> None:
    before = gateway.rules()
    change = gateway.cutover().switch()
    assert gateway.rules() == before.replace(f'dnat to {OLD} comment "the \\\\ $site"', f'dnat to {NEW} comment "the \\\\ $site"')
    assert gateway.rules() != before
    assert change.notes[0].startswith("The rule has counted 0 packets")
    gateway.cutover().switch_back()
    assert gateway.rules() == before


def test_what_is_seen_tells_the_counter_and_who_else_names_the_old_box(gateway: GatewayStand) -> None:
    state = gateway.cutover().verify_ready()
    (witness,) = state.witnesses
    assert witness.where == "gateway 127.0.0.1:22, rule ip nat prerouting handle 3"
    assert witness.shows == (OLD,)
    assert witness.note == f"The rule has counted 7 packets. 1 other rule(s) name {OLD}; they stay as they are."


def test_ipv6_moves_in_the_same_way(gateway: GatewayStand) -> None:
    cutover = gateway.cutover(old=OLD6, new=NEW6)
    cutover.verify_ready()
    cutover.switch()
    assert f"dnat to [{NEW6}]:{PORT}" in gateway.rules()
    assert gateway.spaces["visitors"].run(sys.executable, HERE / "nat_people.py", "ask", PUBLIC6, str(PORT)).text == "new\n"


# visitors


def visitors(gateway: GatewayStand, log: Path) -> Child:
    child = gateway.start("visitors", HERE / "nat_people.py", "visit", PUBLIC, str(PORT), log)
    wait_for(lambda: len(served_by(log, "old")) > 20 or None, what="visitors at the old box", timeout=60, poll=0.1)
    return child


def served_by(log: Path, who: str, since: float = 0.0) -> list[dict[str, Any]]:
    return [one for one in read_lines(log) if one["who"] == who and one["at"] >= since]


def wait_until_served_by(log: Path, who: str, since: float) -> None:
    """Both kinds of visitors, the new connections and the one that stays, ten times and more."""

    def look() -> bool | None:
        kinds = Counter(one["kind"] for one in served_by(log, who, since))
        return min(kinds["new"], kinds["kept"]) > 10 or None

    wait_for(look, what=f"visitors at the {who} box", timeout=60, poll=0.1)


def tell(capsys: pytest.CaptureFixture[str], what: str, log: Path) -> Counter[str]:
    lines = read_lines(log)
    lost = Counter(one["kind"] for one in lines if not one["who"])
    sent = Counter(one["kind"] for one in lines)
    with capsys.disabled():
        sys.stdout.write(f"\n{what}: lost {lost['new']} of {sent['new']} new connections, {lost['kept']} of {sent['kept']} kept ones\n")
    return lost


def test_visitors_lose_nothing_but_a_connection_that_was_open(
    gateway: GatewayStand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both boxes serve all the time here, so whatever is lost is lost by the switch itself."""
    log = tmp_path / "visits"
    with visitors(gateway, log):
        change = gateway.cutover().switch()
        assert change.notes[-1].split()[0].isdigit()
        assert int(change.notes[-1].split()[0]) > 0
        wait_until_served_by(log, "new", change.at)
        assert served_by(log, "old", change.at) == []
        back = gateway.cutover().switch_back()
        wait_until_served_by(log, "old", back.at)
    assert tell(capsys, "a NAT switch there and back", log)["kept"] <= 2  # the connection that stays is cut once each way
    lost = [one for one in read_lines(log) if not one["who"]]
    assert all(any(one["at"] <= moved.at and one["until"] >= moved.asked_at for moved in (change, back)) for one in lost)


def test_where_there_is_no_conntrack_it_is_said_and_open_connections_stay(
    gateway: GatewayStand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "visits"
    cutover = gateway.cutover(gateway.place("bare"))
    with visitors(gateway, log):
        assert "it has no program conntrack" in cutover.verify_ready().witnesses[0].note
        change = cutover.switch()
        assert (
            change.notes[-1]
            == f"Connections that were open to {OLD} were NOT ended on the gateway, and may hang: it has no program conntrack."
        )
        wait_for(lambda: served_by(log, "new", change.at) or None, what="new connections at the new box", timeout=60, poll=0.1)
        assert all(one["kind"] == "kept" for one in served_by(log, "old", change.at))
    assert tell(capsys, "a NAT switch without conntrack", log)["kept"] == 0


# who may


def test_another_host_key_ends_it_before_anything_is_sent(gateway: GatewayStand) -> None:
    place = gateway.place(key=None, password=Secret(gateway.password), host_key="SHA256:" + "A" * 43)
    told = (gateway.folder / "sshd.log").stat().st_size
    with pytest.raises(GatewayKeyError, match="has another host key than the plan says: SHA256:") as caught:
        gateway.cutover(place).switch()
    assert caught.value.facts["seen"] == gateway.fingerprint
    assert isinstance(caught.value, RejectedError)
    assert "assword" not in (gateway.folder / "sshd.log").read_text()[told:]


def test_a_hostile_password_opens_it_and_is_told_nowhere(gateway: GatewayStand, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    change = gateway.cutover(gateway.place(key=None, password=Secret(gateway.password))).switch()
    assert change.acted
    assert gateway.password not in caplog.text + repr(change) + (gateway.folder / "sshd.log").read_text()


@pytest.mark.parametrize(
    ("key", "password", "words"),
    [(None, "wrong", "does not let root in with this password"), ("stranger", None, "does not let root in with this key")],
)
def test_a_refused_login_is_a_clear_error(gateway: GatewayStand, key: str | None, password: str | None, words: str) -> None:
    place = gateway.place(key or "", password=Secret(password) if password else None)
    place = replace(place, key=place.key if key else None)
    with pytest.raises(GatewayLoginError, match=words) as caught:
        gateway.cutover(place).verify_ready()
    assert isinstance(caught.value, RejectedError)
    assert caught.value.hint


def test_a_key_file_with_a_passphrase_is_opened(gateway: GatewayStand) -> None:
    locked = gateway.place("locked", passphrase=Secret(gateway.password))
    assert gateway.cutover(locked).read_state().side is Side.OLD
    with pytest.raises(UsageError, match="is encrypted"):
        gateway.cutover(replace(locked, passphrase=None)).read_state()
    with pytest.raises(UsageError, match="cannot be used"):
        gateway.cutover(replace(locked, passphrase=Secret("wrong"))).read_state()


def test_a_key_file_that_is_none_or_open_to_others_is_not_used(gateway: GatewayStand, tmp_path: Path) -> None:
    file = tmp_path / "key"
    for prepare, words in ((lambda: None, "cannot be read"), (lambda: file.write_text("hello"), "can be read by others")):
        prepare()
        with pytest.raises(UsageError, match=words):
            gateway.cutover(gateway.place(key=file)).read_state()
    file.chmod(0o600)
    with pytest.raises(UsageError, match="cannot be used"):
        gateway.cutover(gateway.place(key=file)).read_state()


@pytest.mark.parametrize("verb", ["read_state", "verify_ready", "switch"])
def test_a_user_without_the_right_is_told_apart_from_a_refused_login(gateway: GatewayStand, verb: str) -> None:
    with pytest.raises(NatForbiddenError, match=r"does not let us read or change its rules: .*not permitted") as caught:
        getattr(gateway.cutover(gateway.place("weak")), verb)()
    assert "sudo" in caught.value.hint


def test_by_sudo_every_program_that_needs_a_right_is_run_so(gateway: GatewayStand) -> None:
    cutover = gateway.cutover(gateway.place("odd"), sudo=True)
    cutover.verify_ready()
    assert cutover.switch().acted
    ran = [line.split()[0] for line in (gateway.folder / "odd/sudone").read_text().splitlines()]
    assert Counter(ran) == {"nft": 8, "conntrack": 2}


def test_a_gateway_without_the_programs_is_said_to_be_one(gateway: GatewayStand) -> None:
    with pytest.raises(NatAnswerError, match=r"cannot run nft: .*sudo"):
        gateway.cutover(gateway.place("bare"), sudo=True).verify_ready()


# the rule


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (RULES.replace(OLD, ELSE), f"No rule of the gateway 127.0.0.1:22 leads to {OLD} on port {PORT}"),
        ("", "No rule of the gateway"),
        (RULES.replace("udp dport", "tcp dport"), "Several rules .* handle 3; ip nat prerouting handle 4"),
        (RULES.replace(f"udp dport {PORT} dnat to {OLD}", f"tcp dport {PORT} dnat to {NEW}"), "Several rules"),
        (RULES.replace(f"dnat to {OLD} comment", f"dnat to {OLD}-{NEW} comment"), "in a form that is not known"),
    ],
    ids=["elsewhere", "none at all", "two", "one to each box", "range"],
)
def test_what_is_not_one_plain_rule_is_refused_in_one_sentence(gateway: GatewayStand, rules: str, words: str) -> None:
    gateway.load(rules)
    before = gateway.rules()
    with pytest.raises(NatRuleError, match=words) as caught:
        gateway.cutover().verify_ready()
    assert caught.value.hint
    with pytest.raises(NatChangedError):
        gateway.cutover().switch()
    assert gateway.rules() == before


def change_at_the_second_listing(gateway: GatewayStand, rules: str) -> None:
    """Somebody else is at work between our look and our transaction."""
    odd = gateway.folder / "odd"
    (odd / "other.nft").write_text(rules)
    (odd / "count").write_text("")
    (odd / "listing").write_text(f"echo >> {odd}/count; [ $(wc -l < {odd}/count) -ne 2 ] || /usr/sbin/nft -f {odd}/other.nft\n")


@pytest.mark.parametrize(
    "rules",
    [
        RULES.replace(f"dnat to {OLD} comment", f"dnat to {ELSE} comment"),
        f"replace rule ip nat prerouting handle 3 ip daddr {PUBLIC} tcp dport {PORT} dnat to {ELSE}\n",
        "delete rule ip nat prerouting handle 3\n",
        f"insert rule ip nat prerouting tcp dport {PORT} drop\n",
        "delete table ip nat\n",
    ],
    ids=["loaded anew with the same handle", "replaced in place", "deleted", "another one before it", "no table any more"],
)
def test_a_rule_that_somebody_else_changes_in_between_is_not_overwritten(gateway: GatewayStand, rules: str) -> None:
    change_at_the_second_listing(gateway, rules)
    with pytest.raises(NatChangedError, match=r"changed by somebody else\. Nothing was overwritten"):
        gateway.cutover(gateway.place("odd")).switch()
    assert NEW not in gateway.rules()


# what breaks


def test_a_gateway_that_is_down_is_a_clear_error(gateway: GatewayStand) -> None:
    gateway.stop_sshd()
    with pytest.raises(GatewayUnreachableError, match="cannot be reached over SSH") as caught:
        gateway.cutover().verify_ready()
    assert isinstance(caught.value, UnreachableError)


def hold(gateway: GatewayStand, name: str) -> Path:
    """An nft that stays before or after its transaction until the file of that name is gone. The path that is there once it stays."""
    odd = gateway.folder / "odd"
    (odd / "reached").unlink(missing_ok=True)
    (odd / name).write_text(f"touch {odd}/reached; while [ -e {odd}/{name} ]; do sleep 0.05; done\n")
    return odd / "reached"


def test_a_gateway_that_falls_silent_is_not_waited_for_for_ever(gateway: GatewayStand) -> None:
    hold(gateway, "before")
    with pytest.raises(GatewayUnreachableError, match=r"did not answer within 3 s|cannot be reached"):
        gateway.cutover(gateway.place("odd", timeout=3.0)).switch()


def start_driver(gateway: GatewayStand, verb: str, place: SshPlace, space: str = "gateway") -> tuple[Child, Path]:
    """The verb in a program of its own; its answer comes into the file."""
    asked = gateway.folder / f"{verb}.json"
    asked.write_text(
        json.dumps({"place": asdict(place) | {"key": str(place.key)}, "plan": {"old": OLD, "new": NEW, "port": PORT}, "verb": verb})
    )
    log = gateway.folder / f"{space}-nat_driver.log"
    log.unlink(missing_ok=True)
    return gateway.start(space, HERE / "nat_driver.py", asked), log


def test_killed_between_the_change_and_its_reading_it_is_found_done(gateway: GatewayStand) -> None:
    reached = hold(gateway, "after")
    driver, log = start_driver(gateway, "switch", gateway.place("odd"))
    with driver:
        wait_for(lambda: reached.exists() or None, what="the transaction", timeout=60, poll=0.05)
        os.killpg(driver.pid, signal.SIGKILL)
    assert log.read_text() == ""
    (gateway.folder / "odd/after").unlink()
    change = gateway.cutover().switch()
    assert (change.side, change.acted) == (Side.NEW, False)
    assert "ended on the gateway" in change.notes[-1]
    assert gateway.cutover().switch_back().acted


def test_a_gateway_that_dies_in_the_middle_is_read_again_when_it_is_back(gateway: GatewayStand) -> None:
    reached = hold(gateway, "after")
    driver, log = start_driver(gateway, "switch", gateway.place("odd"))
    with driver:
        wait_for(lambda: reached.exists() or None, what="the transaction", timeout=60, poll=0.05)
        gateway.stop_sshd()
        (error,) = wait_for(lambda: read_lines(log) or None, what="the driver's answer", timeout=90, poll=0.1)
    assert error["error"]["code"] == "gateway-unreachable"
    (gateway.folder / "odd/after").unlink()
    gateway.start_sshd()
    assert gateway.cutover().switch().acted is False


def test_over_a_slow_and_lossy_link_it_takes_longer_and_does_the_same(gateway: GatewayStand, capsys: pytest.CaptureFixture[str]) -> None:
    """200 ms there and back, 5 % of the packets lost in each direction."""
    with ExitStack() as stack:
        gateway.spaces["admin"] = Space(stack, gateway.folder, "admin")
        wire = [HERE / "slow_wire.py", "between", str(gateway.gateway.pid), ADMIN_SIDE, GATEWAY_SIDE, "0.1"]
        stack.enter_context(gateway.start("admin", *wire))
        place = gateway.place(address=GATEWAY_SIDE)
        driver, log = start_driver(gateway, "switch", place, "admin")
        with driver:
            (answer,) = wait_for(lambda: read_lines(log) or None, what="the switch", timeout=180, poll=0.05)
    del gateway.spaces["admin"]
    change = answer["ok"]
    assert (change["side"], change["acted"]) == ("new", True)
    with capsys.disabled():
        sys.stdout.write(f"\n200 ms and 5 % loss: a NAT switch takes {change['at'] - change['asked_at']:.1f} s\n")


def test_what_a_gateway_says_cannot_steer_a_terminal() -> None:
    assert Said(1, "", "oh\n\x1b[2Jno\n").last_words == "\\u{1B}[2Jno"
    assert Said(1, "out\n", "").last_words == "out"
    assert Said(1, "", "").last_words == "it said nothing"
