from __future__ import annotations

import base64
import copy
import dataclasses
import html
import json
import logging
import pickle
import shlex
import traceback
import urllib.parse
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from kit.errors import FailedError
from kit.secret import MASK, Secret, scrub

HOSTILE = "a!b@c$ 'd\"e\\;ñ"


@dataclass(frozen=True)
class Holder:
    name: str
    secret: Secret


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        "{}".format,
        "{!r:>40}".format,
        "{:>40}".format,
        "%s".__mod__,
        "%r".__mod__,
        lambda secret: f"{secret}{secret!s}{secret!r}",
        lambda secret: str([secret]) + str({"k": secret}) + str((secret,)),
        lambda secret: repr(Holder("h", secret)),
        lambda secret: json.dumps({"s": secret}, default=str),
        lambda secret: str(FailedError("no", password=secret).to_record()),
        lambda secret: str(dir(secret)),
        lambda secret: logging.LogRecord("l", 10, "p", 1, "%s %r", (secret, secret), None).getMessage(),
    ],
)
def test_showing_it_shows_the_mask(show, hostile_secret: Secret) -> None:
    shown = show(hostile_secret)
    assert HOSTILE not in shown
    assert 'd"e' not in shown
    if "__" not in shown:
        assert MASK in shown


@pytest.mark.parametrize(
    "use",
    [
        pickle.dumps,
        lambda secret: pickle.dumps(Holder("h", secret)),
        lambda secret: [pickle.dumps(secret, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)],
        copy.copy,
        copy.deepcopy,
        json.dumps,
        lambda secret: dataclasses.asdict(Holder("h", secret)),
        lambda secret: dataclasses.astuple(Holder("h", secret)),
        lambda secret: TypeAdapter(Holder).dump_json(Holder("h", secret)),
        lambda secret: TypeAdapter(object).dump_json(secret),
        lambda secret: "pre" + secret,
        "".join,
        bytes,
        list,
        len,
        vars,
        Secret,
        lambda secret: Secret(HOSTILE.encode()),
    ],
)
def test_whatever_would_take_it_apart_is_refused_without_telling_it(use, hostile_secret: Secret) -> None:
    with pytest.raises(Exception) as caught:
        use(hostile_secret)
    told = "".join(traceback.format_exception(caught.value))
    assert HOSTILE not in told.replace("HOSTILE", "")
    assert HOSTILE not in repr(caught.value)


def test_a_secret_of_bytes_that_are_no_text_fails_without_showing_them() -> None:
    odd = Secret("hunter2\udcff")
    assert odd.to_bytes() == b"hunter2\xff"
    assert odd == Secret("hunter2\udcff")


def test_it_equals_only_another_secret_of_the_same_text(hostile_secret: Secret) -> None:
    assert hostile_secret == Secret(HOSTILE)
    assert hostile_secret != HOSTILE
    assert hostile_secret != Secret(HOSTILE + " ")
    assert len({hostile_secret, Secret(HOSTILE)}) == 1
    assert hostile_secret
    assert not Secret("")


@pytest.mark.parametrize(
    "echo",
    [
        str,
        repr,
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        html.escape,
        shlex.quote,
        lambda text: urllib.parse.quote(text, safe=""),
        lambda text: urllib.parse.urlencode({"password": text}),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: text.encode("latin-1").decode(errors="replace"),
    ],
)
def test_scrub_finds_the_secret_however_a_program_echoes_it(echo) -> None:
    told = scrub(f"refused <{echo(HOSTILE)}> sorry", Secret(HOSTILE))
    assert MASK in told
    assert told.startswith("refused <")
    assert told.endswith("> sorry")
    assert "b@c" not in told
    assert "b%40c" not in told


def test_scrub_finds_each_line_of_a_secret_with_several_and_ignores_an_empty_one() -> None:
    assert scrub("bad line: second part", Secret("first\nsecond part")) == f"bad line: {MASK}"
    assert scrub("untouched", Secret("")) == "untouched"


def test_scrub_replaces_the_longer_secret_first() -> None:
    assert scrub("abcdef", Secret("abc"), Secret("abcdef")) == MASK


@given(st.text(min_size=4), st.text(), st.text())
def test_scrub_leaves_no_secret_in_any_text(value: str, before: str, after: str) -> None:
    assert value not in scrub(before + value + after, Secret(value)).replace(MASK, "\0")
