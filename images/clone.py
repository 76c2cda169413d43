"""Clones: a new machine goes on from where a template was saved, and takes an identity of its own before anyone can reach it."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from images import identity
from images.domain import Domain
from images.errors import IdentityError
from images.identity import Identity
from images.machine import MachineFacts, Machines, MachineSpec
from images.readiness import TLS_PORT, read_answer
from images.saved import read_saved, render_copy, render_saved
from images.segment import segment_mac
from images.store import create_overlay
from images.template import Template
from kit.errors import DeadlineError, FailedError
from kit.waiting import wait_for

OVERLAY_SECONDS = 60.0
ANSWER_SECONDS = 60.0
PIPE_BYTES = 1 << 20
PIPE_POLL = 0.002


def clone(machines: Machines, template: Template, spec: MachineSpec) -> MachineFacts:
    """Make the machine ``spec`` from the template, and return when its HTTPS answers with a certificate of its own.

    Raises:
        IdentityError, GuestSilentError, SavedStateError, HypervisorError, …: it is no clone to use, and is removed again.

    """
    facts: MachineFacts | None = None
    try:
        facts = machines.ensure_restored(
            spec,
            disk=lambda path: create_overlay(template.disk, path, timeout=OVERLAY_SECONDS),
            restore=lambda domain: restore_copy(machines, template.state, domain),
        )
        factor = machines.acceleration.factor
        wish = plan_wish(facts, template)
        own = identity.renew(machines.hypervisor, wish, factor=factor)
        _wait_for_own_answer(facts, template, own, timeout=ANSWER_SECONDS * factor)
    except FailedError:
        # Nothing that may still be the template under another name stays.
        if facts is not None or machines.ledger.find_request(spec.request_id) is not None:
            machines.ensure_removed(spec.name)
        raise
    return facts


def plan_wish(facts: MachineFacts, template: Template) -> identity.Wish:
    """What the copy shall be that was restored from the template."""
    idle = {segment_mac(template.mac, number): segment_mac(facts.mac, number) for number in range(template.spares)}
    return identity.Wish(facts.name, facts.uuid, {template.mac: facts.mac}, template.host_keys, idle, plan_ports(facts))


def plan_ports(facts: MachineFacts) -> tuple[identity.Port, ...]:
    """The cards of a machine that have an address on a private segment."""
    return tuple(identity.Port(segment_mac(facts.mac, number), card.address) for number, card in enumerate(facts.segments) if card.address)


def restore_copy(machines: Machines, state: Path, domain: Domain) -> None:
    """Start ``domain`` from the saved state of another machine: through a pipe, so that the state is not written once more."""
    with state.open("rb") as source:
        saved = read_saved(source)
    head = render_saved(replace(saved, xml=render_copy(saved.xml, domain)))
    with _feeding(domain.disk.with_name("state.pipe"), head, state, saved.start) as pipe:
        machines.hypervisor.restore(pipe)


@contextmanager
def _feeding(pipe: Path, head: bytes, state: Path, start: int) -> Iterator[Path]:
    """A named pipe that whoever opens it reads ``head`` and then the rest of ``state`` from."""
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    done = threading.Event()
    feeder = threading.Thread(target=_feed, args=(pipe, head, state, start, done), name="state", daemon=True)
    feeder.start()
    try:
        yield pipe
    finally:
        done.set()
        pipe.unlink(missing_ok=True)
        feeder.join()


def _feed(pipe: Path, head: bytes, state: Path, start: int, done: threading.Event) -> None:
    """Whoever reads may go away at any time: then libvirt says what was wrong."""
    sink = _open_sink(pipe, done)
    if sink is None:
        return
    try:
        os.set_blocking(sink, True)
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        view = memoryview(head)
        while view:
            view = view[os.write(sink, view) :]
        with state.open("rb") as source:
            at, end = start, state.stat().st_size
            while at < end:
                at += os.splice(source.fileno(), sink, end - at, offset_src=at)
    except BrokenPipeError:
        return
    finally:
        os.close(sink)


def _open_sink(pipe: Path, done: threading.Event) -> int | None:
    """The pipe for writing, as soon as someone reads; None where nobody will."""
    while not done.is_set():
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # nobody reads yet, or the pipe is gone
            time.sleep(PIPE_POLL)
    return None


def _wait_for_own_answer(facts: MachineFacts, template: Template, own: Identity, *, timeout: float) -> None:
    forward = next((one for one in facts.forwards if one.guest_port == TLS_PORT), None)
    if forward is None:
        return

    def look() -> bool | None:
        answer = read_answer(forward.host, forward.host_port)
        fresh = answer.leaf in own.certificates if own.certificates else answer.leaf != template.leaf
        return True if answer.is_service and fresh else None

    try:
        wait_for(look, what=f"{facts.name} to answer with a certificate of its own", timeout=timeout, poll=0.02)
    except DeadlineError as late:
        raise IdentityError(f"The copy {facts.name} does not serve a certificate of its own: {late.sentence}") from late
