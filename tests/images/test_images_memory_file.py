"""The memory of a template in a file of its own: taken out of QEMU's stream to the byte, or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from fake_hypervisor import FakeHypervisor
from hypothesis import given
from hypothesis import strategies as st
from qemu_stream import DEVICES, OTHER, PAGE, Record, render_stream

from images.domain import MEMORY_BACKEND
from images.errors import SavedStateError
from images.memory_file import USUAL, split_stream, take_memory
from images.saved import Saved, read_saved, render_saved

PAGES, OTHERS = 6, 2
BLOCKS, RENAMED = ((USUAL, PAGES * PAGE), (OTHER, OTHERS * PAGE)), ((MEMORY_BACKEND.encode(), PAGES * PAGE), (OTHER, OTHERS * PAGE))
contents = st.just(b"\0") | st.integers(1, 255).map(lambda byte: bytes((byte, 1)) * (PAGE // 2))


@st.composite
def streams(draw: st.DrawFn) -> list[list[Record]]:
    """All pages of both blocks in any order, in one to three parts."""
    places = [(USUAL, number * PAGE) for number in range(PAGES)] + [(OTHER, number * PAGE) for number in range(OTHERS)]
    records = [(block, offset, draw(contents)) for block, offset in draw(st.permutations(places))]
    cuts = sorted(draw(st.lists(st.integers(0, len(records)), max_size=2)))
    return [records[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(records)], strict=True)]


def split(stream: bytes) -> tuple[bytes, bytes]:
    """What stays, and the memory."""
    rest, memory = io.BytesIO(), io.BytesIO()
    split_stream(io.BytesIO(stream), rest, memory)
    return rest.getvalue(), memory.getvalue()


def usual() -> bytes:
    return render_stream([[(USUAL, number * PAGE, bytes((number,)) if number == 0 else bytes((number,)) * PAGE) for number in range(PAGES)],
                          [(OTHER, 0, b"\0"), (OTHER, PAGE, b"b" * PAGE)]], BLOCKS)  # fmt: skip


@given(streams())
def test_every_page_is_in_the_file_and_all_else_stays_in_the_stream(parts: list[list[Record]]) -> None:
    rest, memory = split(render_stream(parts, BLOCKS, is_brief=False))
    pages = {offset: content for part in parts for block, offset, content in part if block == USUAL}
    wanted = b"".join(pages[number * PAGE].ljust(PAGE, b"\0") for number in range(PAGES))
    assert memory.ljust(PAGES * PAGE, b"\0") == wanted
    kept = [[record for record in part if record[0] != USUAL] for part in parts]
    assert rest == render_stream(kept, RENAMED, is_brief=False)


def test_what_stays_is_the_stream_of_a_machine_whose_memory_is_a_file() -> None:
    rest, _ = split(usual())
    assert rest == render_stream([[], [(OTHER, 0, b"\0"), (OTHER, PAGE, b"b" * PAGE)]], RENAMED)


@given(st.integers(0, len(usual()) - len(DEVICES)))
def test_a_stream_that_was_cut_short_is_refused(length: int) -> None:
    with pytest.raises(SavedStateError):
        split(usual()[:length])


@given(st.integers(0, len(usual()) - 1), st.integers(1, 255))
def test_a_stream_with_any_byte_changed_is_refused_or_loses_nothing(at: int, change: int) -> None:
    stream = bytearray(usual())
    stream[at] ^= change
    try:
        rest, memory = split(bytes(stream))
    except SavedStateError:
        return
    changed = sum(one != other for one, other in zip(rest + memory.ljust(PAGES * PAGE, b"\0"), b"".join(split_usual()), strict=True))
    assert changed == 1


def split_usual() -> tuple[bytes, bytes]:
    rest, memory = split(usual())
    return rest, memory.ljust(PAGES * PAGE, b"\0")


@given(st.binary(max_size=200))
def test_what_is_no_stream_is_refused(content: bytes) -> None:
    for begin in (b"", usual()[:26], usual()[:100]):
        with pytest.raises(SavedStateError):
            split(begin + content)


FORMS = {
    "a page outside of the memory": ([[(USUAL, PAGES * PAGE, b"x" * PAGE)]], BLOCKS),
    "a page that is missing": ([[(USUAL, number * PAGE, b"\0") for number in range(1, PAGES)]], BLOCKS),
    "a page that comes twice": ([[(USUAL, 0, b"\0"), *((USUAL, number * PAGE, b"\0") for number in range(PAGES))]], BLOCKS),
    "pages filled with something else": ([[(USUAL, number * PAGE, b"\1") for number in range(PAGES)]], BLOCKS),
    "no memory of that name": ([[]], ((b"mem0", PAGES * PAGE),)),
    "memory that is no whole pages": ([[]], ((USUAL, PAGE + 1), (OTHER, PAGE - 1))),
    "memory of no length": ([[]], ((USUAL, 0), (OTHER, PAGE))),
    "more memory than there is": ([[]], ((USUAL, 1 << 41),)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_is_not_known_is_refused(form: str) -> None:
    parts, blocks = FORMS[form]
    with pytest.raises(SavedStateError):
        split(render_stream(parts, blocks))


CAPABILITIES = "<capabilities><host>{}</host></capabilities>"
OURSELVES = f"<secmodel><model>dac</model><baselabel type='kvm'>+{os.geteuid()}:+{os.getegid()}</baselabel></secmodel>"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.write_bytes(render_saved(Saved("<domain/>", "<cookie/>", was_running=True, start=0)) + usual())
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("models", ["", OURSELVES, f"<secmodel><model>none</model></secmodel>{OURSELVES}"])
def test_the_memory_moves_and_only_its_user_may_read_both_files(state: Path, models: str) -> None:
    before = state.read_bytes()
    memory = state.with_name("memory")
    assert take_memory(FakeHypervisor(capabilities=CAPABILITIES.format(models)), state, memory)
    assert [path.stat().st_mode & 0o777 for path in (state, memory)] == [0o600, 0o600]
    assert sorted(path.name for path in state.parent.iterdir()) == ["memory", "state"]
    with state.open("rb") as source:
        start = read_saved(source).start
    assert state.read_bytes() == before[:start] + split_usual()[0]
    assert memory.read_bytes() == split_usual()[1]


@pytest.mark.parametrize(
    "models",
    [
        "<secmodel><model>apparmor</model></secmodel>",
        f"{OURSELVES}<secmodel><model>selinux</model></secmodel>",
        "<secmodel><model>dac</model></secmodel>",
        "<secmodel><model>dac</model><baselabel>root:root</baselabel></secmodel>",
    ],
)
def test_it_stays_where_qemu_may_not_open_what_libvirt_does_not_know(state: Path, models: str) -> None:
    before = state.read_bytes()
    assert not take_memory(FakeHypervisor(capabilities=CAPABILITIES.format(models)), state, state.with_name("memory"))
    assert state.read_bytes() == before
    assert list(state.parent.iterdir()) == [state]


def test_it_stays_where_the_form_is_not_known_or_the_file_cannot_be_given_away(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hypervisor, memory = FakeHypervisor(capabilities=CAPABILITIES.format("")), state.with_name("memory")

    def refuse(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchown", refuse)
        assert not take_memory(hypervisor, state, memory)
    whole = state.read_bytes()
    state.write_bytes(whole.replace(b"QEVM", b"QEVN"))
    assert not take_memory(hypervisor, state, memory)
    state.write_bytes(whole[:-40])
    assert not take_memory(hypervisor, state, memory)
    assert state.read_bytes() == whole[:-40]
    assert list(state.parent.iterdir()) == [state]
