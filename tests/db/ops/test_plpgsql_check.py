"""plpgsql_check finds nothing in any of our plpgsql functions; the catalog is as the rules say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

SCHEMAS = ["ops", "market", "feature", "regime", "ml", "drift", "sentiment", "analytics"]

Conn = psycopg.Connection[Any]


@pytest.fixture
def checked(db_module: Conn) -> Iterator[Conn]:
    db_module.execute("create extension if not exists plpgsql_check")
    # pg_cron is in the server's main database only; here stands what we use of it.
    db_module.execute(
        """
        create schema cron;
        create table cron.job (
            jobid bigint, schedule text, command text, database text, username text, active boolean,
            jobname text
        );
        create table cron.job_run_details (end_time timestamptz);
        create function cron.schedule(text, text, text) returns bigint language sql return 1;
        create function cron.unschedule(bigint) returns boolean language sql return true;
        create function cron.schedule_in_database(text, text, text, text, text) returns bigint
        language sql return 1;
        -- ops.run makes it when it runs
        create or replace procedure pg_temp._run_command() language plpgsql as 'begin end';
        """
    )
    stub = db_module.execute("select to_regproc('regime.classify')").fetchone() == (None,)
    if stub:
        db_module.execute(
            "create function regime.classify(symbol text, as_of timestamptz, out regime text)"
            " language sql stable return 'x'::text"
        )
    yield db_module
    db_module.execute("drop schema cron cascade")
    if stub:
        db_module.execute("drop function regime.classify(text, timestamptz)")


def test_plpgsql_check_finds_nothing(checked: Conn) -> None:
    rows = checked.execute(
        """
        select p.oid::regprocedure::text, c.lineno, c.level, c.message
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        join pg_language l on l.oid = p.prolang
        cross join lateral plpgsql_check_function_tb(
            p.oid, other_warnings => true, performance_warnings => false, extra_warnings => false,
            fatal_errors => false
        ) c
        where n.nspname = any (%s) and l.lanname = 'plpgsql' and p.prorettype <> 'trigger'::regtype
            and c.level in ('error', 'warning')
            -- "from" and "to" are names of the public surface, always quoted
            and c.message not like 'name of parameter "%%" is reserved keyword'
        order by 1, 2
        """,
        (SCHEMAS,),
    ).fetchall()
    assert not rows, "\n".join(map(str, rows))


def test_plpgsql_check_finds_nothing_in_triggers(checked: Conn) -> None:
    rows = checked.execute(
        """
        select distinct p.oid::regprocedure::text, t.tgrelid::regclass::text, c.lineno, c.message
        from pg_trigger t
        join pg_proc p on p.oid = t.tgfoid
        join pg_namespace n on n.oid = p.pronamespace
        join pg_language l on l.oid = p.prolang
        join pg_class r on r.oid = t.tgrelid
        join pg_namespace m on m.oid = r.relnamespace
        cross join lateral plpgsql_check_function_tb(
            p.oid, t.tgrelid, other_warnings => true, performance_warnings => false,
            extra_warnings => false, fatal_errors => false,
            oldtable => t.tgoldtable, newtable => t.tgnewtable
        ) c
        where n.nspname = any (%s) and m.nspname = any (%s) and l.lanname = 'plpgsql'
            and not t.tgisinternal and c.level in ('error', 'warning')
            -- one function serves inserts, updates and deletes; which table it has depends on tg_op
            and c.message not like 'relation "%%_rows" does not exist'
        order by 1, 2
        """,
        (SCHEMAS, SCHEMAS),
    ).fetchall()
    assert not rows, "\n".join(map(str, rows))


def test_every_public_function_table_and_view_has_a_comment(db_module: Conn) -> None:
    rows = db_module.execute(
        """
        select 'function ' || p.oid::regprocedure
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = any (%s) and p.proname not like '\\_%%'
            and obj_description(p.oid, 'pg_proc') is null
        union all
        select case c.relkind when 'v' then 'view ' else 'table ' end || c.oid::regclass
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = any (%s) and c.relkind in ('r', 'p', 'v', 'm')
            and c.relname not like '\\_%%' and c.relname <> 'yoyo_lock'
            and obj_description(c.oid, 'pg_class') is null
        union all
        select 'schema ' || n.nspname
        from pg_namespace n
        where n.nspname = any (%s) and obj_description(n.oid, 'pg_namespace') is null
        """,
        (SCHEMAS, SCHEMAS, SCHEMAS),
    ).fetchall()
    assert not rows, "\n".join(name for (name,) in rows)


def test_predicting_reads(db_module: Conn) -> None:
    rows = db_module.execute(
        """
        select p.oid::regprocedure::text, p.provolatile
        from pg_proc p
        where p.pronamespace = 'ml'::regnamespace and p.proname like 'predict%%'
            and p.provolatile <> 's'
        """
    ).fetchall()
    assert not rows


def test_definer_functions_are_pinned_and_nobody_elses(db_module: Conn) -> None:
    rows = db_module.execute(
        """
        select p.oid::regprocedure::text, p.proowner::regrole::text, p.proconfig
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = any (%s) and p.prosecdef
            and (
                p.proowner <> case
                    when p.proname in ('_set_rows', '_set_columns', '_label_select')
                        then 'alphaplus_select'::regrole
                    when p.proname in ('_copy_vectors', '_copy_blocks')
                        then 'alphaplus_copy'::regrole
                    else 'alphaplus_owner'::regrole end
                or not exists (
                    select from unnest(p.proconfig) as c (setting)
                    where c.setting like 'search_path=%%' and c.setting like '%%pg_temp'
                )
            )
        """,
        (SCHEMAS,),
    ).fetchall()
    assert not rows


def test_the_public_has_nothing(db_module: Conn) -> None:
    rows = db_module.execute(
        """
        select p.oid::regprocedure::text
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = any (%s) and exists (
            select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            where a.grantee = 0
        )
        """,
        (SCHEMAS,),
    ).fetchall()
    assert not rows, "\n".join(name for (name,) in rows)
