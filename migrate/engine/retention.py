"""Old runs are deleted: the library's rows and ours."""

from __future__ import annotations

import time

import sqlalchemy as sa

from migrate.engine import tables as t
from migrate.engine.database import translated
from migrate.engine.status import ENDS

BATCH = 100


@translated()
def forget_ended(engine: sa.Engine, older_than: float) -> tuple[str, ...]:
    """Delete runs that ended more than ``older_than`` seconds ago, in batches; their names. Runs that have not ended are kept for ever."""
    from migrate.engine.flow import delete_workflows, undo_id

    gone: list[str] = []
    while batch := _find_old(engine, time.time() - older_than):
        delete_workflows(engine, [name for run, undos in batch for name in (run, *(undo_id(run, number + 1) for number in range(undos)))])
        names = [run for run, _ in batch]
        with engine.begin() as connection:
            for table in (t.nodes, t.rounds, t.decisions, t.runs):
                connection.execute(table.delete().where(table.c.run.in_(names)))
        gone += names
    return tuple(gone)


def _find_old(engine: sa.Engine, before: float) -> list[tuple[str, int]]:
    query = sa.select(t.runs.c.run, t.runs.c.served).where(t.runs.c.state.in_(list(ENDS)), t.runs.c.ended < before)
    with engine.connect() as connection:
        return [(row.run, row.served) for row in connection.execute(query.order_by(t.runs.c.ended).limit(BATCH))]
