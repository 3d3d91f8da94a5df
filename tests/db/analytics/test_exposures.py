"""What hangs on what, and that a migration which would break it fails with its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus import migrations as applier

from tests.db.ops.test_migrations import catalog, checkout, conninfo

__all__ = ["checkout"]
Conn = psycopg.Connection[Any]


def exposed(db: Conn, name: str) -> dict[str, tuple[str, int, str | None]]:
    rows = db.execute(
        "select depends_on, depends_on_kind, depth, via from analytics.exposures where name = %s",
        (name,),
    ).fetchall()
    return {f"{row[1]} {row[0]}": row[1:] for row in rows}


def test_tiles_and_views_down_to_features(db: Conn) -> None:
    db.execute(
        "select analytics.register_tile('Risk', 'now', $$with w as (select * from"
        " analytics.model_health) select w.model, p.probability from w cross join lateral"
        " ml.predict('liquidation_15m', 'BTCUSDT') p$$)"
    )
    db.execute(
        "create view public.first as select model, log_loss from analytics.inference"
        " where model = 'direction_4h'"
    )
    db.execute(
        "create materialized view public.second as select f.model, v.rsi_14 from public.first f,"
        " feature.technical_1m('BTCUSDT') v with no data"
    )
    tile = exposed(db, "Risk / now")
    assert tile["view analytics.model_health"] == ("view", 1, None)
    assert tile["function analytics.model_health"][1:] == (2, "analytics.model_health")
    assert tile["function ml.predict"] == ("function", 1, None)
    assert tile["model liquidation_15m"] == ("model", 1, None)
    assert tile["feature set liquidation"] == ("feature set", 2, "liquidation_15m")
    features = db.execute("select unnest(features) from feature.sets where name = 'liquidation'")
    assert {f"feature liquidation.{name}" for (name,) in features} <= set(tile)
    assert "view w" not in tile
    first = exposed(db, "public.first")
    assert first["view analytics.inference"][1] == 1
    assert first["model direction_4h"][1] == 1
    assert first["feature set technical_1h"][1:] == (2, "direction_4h")
    second = exposed(db, "public.second")
    assert second["view public.first"][1] == 1
    assert second["view analytics.inference"][1:] == (2, "public.first")
    assert second["function feature.technical_1m"][1] == 1
    # Of a set that is read by itself only what is named.
    named = {k for k in second if k.startswith("feature technical_1m.")}
    assert named == {"feature technical_1m.rsi_14"}
    kinds = db.execute("select distinct kind from analytics.exposures order by 1").fetchall()
    assert kinds == [("materialized view",), ("tile",), ("view",)]
    assert db.execute("select analytics.forget_tiles('Risk')").fetchone() == (1,)
    assert exposed(db, "Risk / now") == {}


@pytest.mark.parametrize(
    "query",
    [
        None, "", "selec t", "select 1; drop table analytics.tiles", "delete from analytics.tiles",
        "with d as (delete from analytics.tiles returning *) select * from d",
        "select 1 into other", "x" * 100_001,
    ],
)  # fmt: skip
def test_what_is_no_select_is_no_tile(db: Conn, query: str | None) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select analytics.register_tile('d', 't', %s)", (query,))
    assert caught.value.sqlstate == "AP979" and caught.value.diag.message_hint
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select analytics.register_tile('d', null, 'select 1')")
    assert caught.value.sqlstate == "AP979"


EXTRA = "-- For the test.\ncreate or replace view analytics.extra_view as select {};\n"


def test_views_of_users_survive_or_are_named(server: Any, db: Conn, checkout: Path) -> None:
    """With owner, rights, comments and indexes; what would break one changes nothing."""
    extra = checkout / "sql" / "analytics" / "extra.sql"

    def apply(columns: str) -> None:
        extra.write_text(EXTRA.format(columns))
        applier.migrate(conninfo(server, db), checkout)

    apply("1 as one, 2 as two")
    db.execute("create schema mine authorization alphaplus_reader")
    db.execute(
        "create view mine.a with (security_barrier = true) as select one from analytics.extra_view"
    )
    db.execute("comment on view mine.a is 'It''s mine'")
    db.execute("comment on column mine.a.one is 'One'")
    db.execute("alter view mine.a owner to alphaplus_reader")
    db.execute("grant select on mine.a to alphaplus_app with grant option")
    db.execute("create materialized view mine.b as select one + 1 as more from mine.a")
    db.execute("create unique index b_idx on mine.b (more)")
    look = (
        "select c.relname, c.relowner::regrole::text, c.relacl::text, c.reloptions::text,"
        " pg_get_viewdef(c.oid), obj_description(c.oid), col_description(c.oid, 1), (select"
        " pg_get_indexdef(i.indexrelid) from pg_index i where i.indrelid = c.oid)"
        " from pg_class c where c.relnamespace = 'mine'::regnamespace and c.relkind in ('v', 'm')"
        " order by 1"
    )
    before = db.execute(look).fetchall()
    # A column goes that nobody reads, another comes before it: CREATE OR REPLACE cannot do that.
    apply("0 as zero, 1 as one")
    assert db.execute(look).fetchall() == before
    assert db.execute("select more from mine.b").fetchone() == (2,)
    # The one that is read goes.
    all_before = catalog(db)
    with pytest.raises(applier.MigrationError, match=r"break the view mine\.a of alphaplus_reader"):
        apply("0 as zero, 2 as two")
    assert catalog(db) == all_before and db.execute(look).fetchall() == before
    # Another type under the materialized view.
    with pytest.raises(applier.MigrationError, match=r"materialized view mine\.b"):
        apply("'2026-01-01'::date as zero, 'x'::text as one")
    assert db.execute(look).fetchall() == before


def test_a_tile_that_would_break_is_named(server: Any, db: Conn, checkout: Path) -> None:
    extra = checkout / "sql" / "analytics" / "extra.sql"
    extra.write_text(EXTRA.format("1 as one"))
    applier.migrate(conninfo(server, db), checkout)
    db.execute(
        "select analytics.register_tile('Board', 'ones', 'select one from analytics.extra_view')"
    )
    # One that never ran holds up nothing, and one that nobody may read is not run by a greater one.
    db.execute("select analytics.register_tile('Board', 'never', 'select one from nowhere.thing')")
    db.execute(
        "insert into analytics.tiles values ('Board', 'bad', 'select 1; drop table analytics.tiles')"
    )
    extra.write_text(EXTRA.format("1 as one, 2 as two"))
    applier.migrate(conninfo(server, db), checkout)
    before = catalog(db)
    extra.write_text(EXTRA.format("1 as three"))
    with pytest.raises(applier.MigrationError, match=r"'ones' of dashboard 'Board'"):
        applier.migrate(conninfo(server, db), checkout)
    assert catalog(db) == before
    assert db.execute("select count(*) from analytics.tiles").fetchone() == (3,)
