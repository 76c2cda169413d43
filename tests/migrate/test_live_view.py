"""What a person sees while a run goes on."""

from __future__ import annotations

import pytest

from migrate.cli.view import Row, _apply
from migrate.engine.model import Event, EventKind


@pytest.mark.parametrize(("done", "total"), [(None, None), (None, 30.0), (3.0, None), (3.0, 30.0)])
def test_progress_is_shown_however_little_is_known_of_its_length(done: float | None, total: float | None) -> None:
    row = Row()
    _apply(row, Event(EventKind.PROGRESS, "run", "node", 1.0, "boots", done, total))
    assert row.text.startswith("boots")
