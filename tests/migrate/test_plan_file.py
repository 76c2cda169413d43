from __future__ import annotations

from pathlib import Path

import pytest
from examples_of_plans import PLAN, line_of, make_plan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.errors import UnexpectedError, from_record
from migrate.cli.running import warn_of_loss
from migrate.pair_plan import plan_joined_pair
from migrate.plan import Plan
from migrate.plan_file import MAX_BYTES, PlanError, parse_plan, read_plan

HOSTILE = "a!b@c$ 'd\"e\\;ñ"


def faults_of(text: str | bytes) -> tuple[str, ...]:
    raw = text.encode() if isinstance(text, str) else text
    with pytest.raises(PlanError) as caught:
        parse_plan(raw, "plan.yaml")
    return caught.value.faults


def changed(before: str, after: str) -> str:
    assert before in PLAN
    return PLAN.replace(before, after, 1)


def test_a_plan_is_read_with_its_defaults() -> None:
    plan = make_plan()
    assert plan.site.name == "support.example.test"
    assert plan.old.service.visible == "127.0.0.11"
    assert plan.new.provisioned
    assert plan.cutover.data == "resync"
    assert (plan.watch.soak, plan.retire.hold) == (3600.0, 86400.0)


def test_versions_and_serial_numbers_stay_the_text_they_are() -> None:
    plan = make_plan()
    assert plan.old.expect.site == "22.10"
    assert plan.old.serial == "00123456"
    assert plan.old.accounts.api is not None
    assert plan.old.accounts.api.client_id == "0012"


def test_five_faults_are_told_together_each_at_its_line() -> None:
    text = (
        PLAN.replace("name: support.example.test", "name: support example")
        .replace("  port: 8443\nold", "  port: 99999\nold")
        .replace("  expect:\n", "  expectations: 3\n  expect:\n")
        .replace("    name: support-new\n", "")
        .replace("  password: env:BACKUP", "  password: BACKUP")
    )
    faults = faults_of(text)
    assert len(faults) == 5
    assert [fault.split(":")[0] for fault in faults] == [
        f"line {line_of(text, part)}" for part in ("support example", "99999", "expectations", "machine:", "password: BACKUP")
    ]
    told = "\n".join(faults)
    for words in (
        "site.name: is not a fully qualified host name",
        "site.port: Input should be less than or equal to 65535",
        "old.expectations: is not a setting of a plan",
        "new.machine.name: is missing",
        "backup.password: is not a reference to a secret",
    ):
        assert words in told


PAIR = "  data: failover\n  failover: {pre_shared_key: env:PAIR, old: {host: 10.123.7.1}, new: {host: 10.123.7.2}}\n  dns:\n"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("  failover:", "  watchers:", "cutover.watchers: is not a setting of a plan"),
        ("  data: failover\n", "", "cutover: `data: failover` and the settings under `failover` belong together"),
        ("pre_shared_key: env:PAIR, ", "", "cutover.failover.pre_shared_key: is missing"),
        ("env:PAIR", "hunter2", "cutover.failover.pre_shared_key: is not a reference to a secret"),
        ("10.123.7.2", "support.example.test", "cutover: failover names a box by the site's name"),
        ("10.123.7.2", "10.123.7.1", "cutover: failover gives both boxes the same address"),
        (", new: {host: 10.123.7.2}", "", "cutover: failover needs `old` and `new`"),
        (
            "    name: support-new\n",
            "    name: support-new\n    segment: {name: s, address: 10.123.7.2}\n",
            "is not an IPv4 address with its",
        ),
    ],
)
def test_what_a_failover_pair_needs_is_told_at_its_line(before: str, after: str, words: str) -> None:
    text = PLAN.replace("  dns:\n", PAIR)
    assert parse_plan(text.encode(), "plan.yaml").cutover.by_failover
    assert before in text
    faults = faults_of(text.replace(before, after))
    assert any(words in fault for fault in faults), faults
    assert not any(fault.startswith("line 1:") for fault in faults)
    assert "hunter2" not in str(faults)


def test_the_boxes_of_a_migration_by_failover_are_a_pair_without_shared_addresses() -> None:
    plan = parse_plan(PLAN.replace("  dns:\n", PAIR).encode(), "plan.yaml")
    pair = plan_joined_pair(plan, "cd" * 32)
    assert (pair.a.pin, pair.b.pin, pair.shared) == (plan.old.pin, "cd" * 32, ())
    assert (pair.a.place.host, pair.b.place.host, pair.b.place.port) == ("10.123.7.1", "10.123.7.2", 443)
    with pytest.raises(UnexpectedError):
        plan_joined_pair(make_plan(), "cd" * 32)


def test_a_plan_that_gives_records_up_says_so_before_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    for data, words in (("none", "IS LOST"), ("resync", "")):
        warn_of_loss(make_plan(("cutover:\n", f"cutover:\n  data: {data}\n")))
        said = capsys.readouterr().err
        assert words in said
        assert bool(words) == bool(said)


def test_faults_survive_being_stored() -> None:
    with pytest.raises(PlanError) as caught:
        parse_plan(b"boxshift: 2", "plan.yaml")
    again = from_record(caught.value.to_record())
    assert isinstance(again, PlanError)
    assert again.faults == caught.value.faults
    assert len(again.faults) > 3


SECRETS = (
    "hunter2",
    HOSTILE,
    "*hunter2",
    "!hunter2",
    "&hunter2",
    "@hunter2",
    "%hunter2",
    "`hunter2",
    "|hunter2",
    ">hunter2",
    "{hunter2",
    "[hunter2",
)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("password: env:OLD_SITE", "password: {}"),
        ("password: env:OLD_SITE", "password: '{}'"),
        ("password: env:OLD_SITE", "password:{}"),
        ("password: env:OLD_SITE", "password: env:OLD_SITE\n      password: {}"),
        ("password: env:OLD_SITE", "password: [{}]"),
        ("password: env:OLD_SITE", "password: {{{}: x}}"),
        ("password: env:OLD_SITE", "password: env:{} x"),
        ("password: env:OLD_SITE", "password: file:{}"),
        ("password: env:OLD_SITE", "password: !!int {}"),
        ("password: env:OLD_SITE", "\tpassword: {}"),
        ("password: env:OLD_SITE", "password: {}\n  {}"),
        ("password: env:OLD_SITE", "{}"),
        ("password: env:OLD_SITE", '{}: "'),
        ("{user: admin, password:", "{{user: admin, password:{}, passwort:"),
        ("key: env:TSIG", "key: {}"),
        ("boxshift: 1", "%{}\n---\nboxshift: {}"),
    ],
)
def test_a_secret_in_plain_text_is_refused_without_being_repeated(secret: str, before: str, after: str) -> None:
    text = changed(before, after.format(secret, secret))
    with pytest.raises(PlanError) as caught:
        parse_plan(text.encode(), "plan.yaml")
    told = str(caught.value) + repr(caught.value) + str(caught.value.to_record()) + str(caught.value.__cause__)
    for part in ("hunter2", HOSTILE, "b@c"):
        assert part not in told
    assert caught.value.faults


def test_a_key_that_stands_twice_is_told_with_both_lines() -> None:
    text = changed("  port: 8443\nold", "  port: 8443\n  port: 8444\nold")
    assert faults_of(text) == (f"line {line_of(text, '8444')}: site.port: stands twice, first in line {line_of(text, '8443')}",)


def test_keys_that_stand_twice_and_other_faults_are_told_together() -> None:
    text = changed("  port: 8443\nold", "  port: 0\n  port: 8444\nold")
    assert [fault.split(":")[0] for fault in faults_of(text)] == ["line 4", "line 5"]


# Each list holds the one before nine times.
LAUGHS = "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed("  port: 8443\nold", "\tport: 8443\nold"), "line 4: a tab stands where YAML wants spaces"),
        (changed("8443\nold", "@x\nold"), "line 4: text that begins with this character needs quotes"),
        (changed("8443\nold", "*x\nold"), "line 4: an alias (*) names nothing; text that begins with * needs quotes"),
        (changed("8443\nold", "!x 3\nold"), "line 4: a tag (!) has no meaning in a plan"),
        (changed("8443\nold", "\a\nold"), "line 4: a control character stands here"),
        (changed("8443\nold", "a: b\nold"), "line 4: mapping values are not allowed here"),
        (PLAN + "---\nboxshift: 1\n", "a second document begins here"),
        (PLAN + "? [a, b]\n: 3\n", "a setting's name must be a plain word"),
        (PLAN + "<<: {a: 1}\n", "a setting's name must be a plain word"),
        (changed("site:\n", "site: &s\n") + "watch: *s\n", "watch.name: is not a setting of a plan"),
        ("a: &a [*a]", "it is nested too deeply"),
        ("a: &a\n  b: *a\n", "it is nested too deeply"),
        ("[" * 1000, "it is nested too deeply"),
        ("- " * 1000, "it is nested too deeply"),
        ("x: " + "[" * 30 + "]" * 30, "it is nested too deeply"),
        ("x: [" + "1," * 12000 + "]", "it holds more values than a plan can have"),
        (LAUGHS, "it holds more values than a plan can have"),
        (changed("site:\n  name: support.example.test\n  port: 8443\n", "site: here\n"), "line 2: site: must hold settings, one a line"),
        (changed("site:\n  name: support.example.test\n  port: 8443\n", "site:\n"), "line 2: site: must hold settings, one a line"),
        (changed("port: 8443\nold", "port: yes\nold"), "line 4: site.port: "),
        (changed("port: 8443\nold", "port: 8443.5\nold"), "line 4: site.port: "),
        (changed("port: 8443\nold", "port: [8443]\nold"), "line 4: site.port: "),
        (changed("port: 8443\nold", f"port: {'9' * 6000}\nold"), "line 4: site.port: "),
        (changed("address: 127.0.1.11", "address: https://127.0.1.11/"), "line 6: old.address: is neither an IP address nor a host name"),
        (changed("address: 127.0.1.11", "address: 127.0.1.11:443"), "line 6: old.address: is neither"),
        (changed("address: 127.0.1.11", "address: ''"), "line 6: old.address: is neither"),
        (changed("server: 127.0.0.53", "server: 3232235521"), "cutover.dns.server: "),
        (changed("server: 127.0.0.53", "server: ns1.example.test"), "cutover.dns.server: "),
        (changed("boxshift: 1", "boxshift: 2"), "line 1: boxshift: "),
        (changed("boxshift: 1", "boxshift: true"), "line 1: boxshift: "),
        (changed("boxshift: 1\n", ""), "line 1: boxshift: is missing"),
        (changed("127.0.1.12", "127.0.1.11"), "the plan: old and new have the same administration address"),
        (changed("reached_at: 127.0.0.12", "reached_at: 127.0.0.11"), "the plan: old and new have the same service address"),
        (changed("    image: reference\n", ""), "new: needs either machine.image"),
        (changed(f"pin: {'ab' * 32}", "pin: abcd"), "line 8: old.pin: is not a SHA-256 fingerprint"),
        (changed("name: support-new", "name: ../../etc"), "new.machine.name: "),
        (changed("packages: {accept_eula: true}", "packages: {source: folder}"), "packages: source: folder needs `folder`"),
        (PLAN + "watch: {clients: .nan}\n", "watch.clients: "),
        (PLAN + "watch: {clients: 1.5}\n", "watch.clients: "),
        (PLAN + "verify: {commands: [ls]}\n", "verify.commands.0: "),
    ],
)  # fmt: skip
def test_each_fault_is_told_in_words_at_its_line(text: str, words: str) -> None:
    assert any(words in fault for fault in faults_of(text)), faults_of(text)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "is no list of settings"),
        (b"just text", "is no list of settings"),
        (PLAN.encode("utf-16"), "is not UTF-8 text"),
        ("ñ".encode("latin-1"), "is not UTF-8 text (byte 0)"),
        (b"\x7fELF\x02\x01\x01\x00\xff", "is not UTF-8 text"),
        (b"\x00" * 100, "is not valid YAML"),
        (b"x" * (MAX_BYTES + 1), "is larger than a plan can be"),
    ],
)
def test_what_is_no_plan_at_all_is_told_in_a_sentence(raw: bytes, sentence: str) -> None:
    with pytest.raises(PlanError, match=r"plan\.yaml") as caught:
        parse_plan(raw, "plan.yaml")
    assert sentence in caught.value.sentence
    assert caught.value.hint


@pytest.mark.parametrize(
    "raw", [b"\xef\xbb\xbf" + PLAN.encode(), PLAN.replace("\n", "\r\n").encode(), PLAN.rstrip().encode(), b"---\n" + PLAN.encode()]
)
def test_byte_order_marks_and_other_line_ends_are_fine(raw: bytes) -> None:
    assert parse_plan(raw, "plan.yaml") == make_plan()


def test_an_anchor_may_spare_typing() -> None:
    text = changed("site: {password: prompt}", "site: &mine {password: prompt}").replace(
        "appliance: {password: prompt}", "appliance: *mine"
    )
    assert parse_plan(text.encode(), "plan.yaml") == make_plan()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800), ("1.5h", 5400), ("0", 0), ("' 5 m '", 300)],
)
def test_durations(text: str, seconds: float) -> None:
    assert make_plan(more=f"watch: {{soak: {text}}}\n").watch.soak == seconds


@pytest.mark.parametrize(
    "text", ["-5", "5 weeks", "1h30m", "91d", ".inf", ".nan", "nan", "inf", "1e9", "''", "true", "[1]", "five", "null", "٣"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    assert any("watch.soak" in fault for fault in faults_of(PLAN + f"watch: {{soak: {text}}}\n"))


@pytest.mark.parametrize(
    "text", ["2027-02-28T22:00:00+01:00", "'2027-02-28T22:00+01:00'", "2027-02-28T21:00:00Z", "2027-02-28 22:00:00+01:00"]
)
def test_a_switch_may_wait_for_a_moment(text: str) -> None:
    plan = make_plan(("cutover:\n", f"cutover:\n  not_before: {text}\n"))
    assert plan.cutover.not_before == text.strip("'")


@pytest.mark.parametrize(
    "text", ["2027-02-28T22:00:00", "2027-02-28", "22:00", "tomorrow", "2027-02-30T22:00:00+01:00", "1772312400", "9999-99-99", "''"]
)
def test_a_moment_without_offset_or_sense_is_refused(text: str) -> None:
    faults = faults_of(changed("cutover:\n", f"cutover:\n  not_before: {text}\n"))
    assert any("cutover.not_before: is not a date and time with offset" in fault for fault in faults)


@pytest.mark.parametrize("reference", ["env:A", "file:a b/c.yaml#key", "file:/x#a.b-c", "keyring:service/user name", "prompt"])
def test_every_form_of_reference_is_taken(reference: str) -> None:
    assert make_plan(("env:BACKUP", f"'{reference}'")).backup.password == reference


@pytest.mark.parametrize(
    "reference", ["env:", "env:1A", "env:A B", "file:x", "file:#k", "keyring:service", "prompt:x", "PROMPT", "", "file:a#b\\nc"]
)
def test_what_only_looks_like_a_reference_is_refused(reference: str) -> None:
    assert faults_of(changed("env:BACKUP", f'"{reference}"'))


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_plan().site.port = 1  # type: ignore[misc]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(PlanError, match="cannot be read"):
            read_plan(path)


def test_a_plan_file_knows_its_folder_and_digest(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    loaded = read_plan(tmp_path / "plan.yaml")
    assert loaded.folder == tmp_path
    assert len(loaded.digest) == 64
    assert loaded.plan == make_plan()


GARBAGE = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(str.encode),
    st.text(alphabet="ab:-?#&*!|>'\"%@`{}[], \n\t0\\<~", max_size=200).map(str.encode),
    st.tuples(st.integers(0, len(PLAN)), st.text(alphabet="ab:-?#&*!|>'\"{}[], \n\t0\\<~ñ\0", max_size=12), st.integers(0, 12)).map(
        lambda cut: (PLAN[: cut[0]] + cut[1] + PLAN[cut[0] + cut[2] :]).encode()
    ),
)


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(GARBAGE)
def test_whatever_stands_in_the_file_it_is_a_plan_or_a_plan_error(raw: bytes) -> None:
    try:
        assert isinstance(parse_plan(raw, "plan.yaml"), Plan)
    except PlanError:
        return


@pytest.mark.parametrize(
    "unit",
    ["[", "{", "- ", "? ", "{a: ", "a: 1\n", "- x\n", "x,", "&a ", "!", "'", '"\\', "#", "\n", ": ", "a:\n ", "*a ", "|\n ", "%"],
)
@pytest.mark.timeout(60)
def test_the_largest_file_takes_no_unbounded_time(unit: str) -> None:
    for start in ("", "a: &a "):
        raw = (start + unit * MAX_BYTES)[:MAX_BYTES].encode()
        with pytest.raises(PlanError):
            parse_plan(raw, "plan.yaml")
