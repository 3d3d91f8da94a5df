"""0007: procrastinate's queue, in a schema of its own, from the pinned package's own SQL."""

from typing import Any

from procrastinate.schema import SchemaManager
from yoyo import step

__depends__ = {"0006_ml"}


def _create(conn: Any) -> None:
    cursor = conn.cursor()
    cursor.execute("create schema procrastinate")
    cursor.execute("set local search_path = procrastinate, pg_catalog")
    cursor.execute(SchemaManager.get_schema())
    # procrastinate names its tables without their schema, so its functions and triggers would work
    # under its own search_path only, and not when a function of ours touches the queue.
    cursor.execute(
        "select p.oid::pg_catalog.regprocedure::text from pg_catalog.pg_proc p"
        " where p.pronamespace = 'procrastinate'::pg_catalog.regnamespace"
    )
    for (name,) in cursor.fetchall():
        cursor.execute(
            f"alter function {name} set search_path = procrastinate, pg_catalog, pg_temp"
        )
    cursor.execute("reset search_path")
    cursor.execute(
        "comment on schema procrastinate is"
        " 'The job queue (procrastinate). Read it through ml.training_jobs.'"
    )


def _drop(conn: Any) -> None:
    conn.cursor().execute("drop schema procrastinate cascade")


steps = [step(_create, _drop)]
