"""Idempotent actions: look, act, confirm. Each module holds those of one phase."""

from __future__ import annotations


def load_all() -> None:
    """Import every module of steps, so that all are registered."""
    from migrate.steps import build, clients, cutover, inspect, join, pair, prepare, retire, upgrade, verify, watch  # noqa: F401 - imported to register
