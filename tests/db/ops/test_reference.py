"""The reference page is what the database says."""

from __future__ import annotations

from typing import Any

import psycopg
from alphaplus.cli import reference


def test_the_reference_page_is_up_to_date(db_module: psycopg.Connection[Any]) -> None:
    assert reference.PATH.exists(), "docs/reference.md is missing: run make docs"
    text = reference.page(db_module)
    assert "## ml" in text
    assert "### ml.predict_liquidation" in text
    assert reference.PATH.read_text() == text, "docs/reference.md is stale: run make docs"


def test_every_builtin_feature_is_described(db_module: psycopg.Connection[Any]) -> None:
    rows = db_module.execute(
        "select s.name, f.feature from feature.sets s cross join unnest(s.features) as f (feature)"
        " left join feature.definitions d on d.feature_set = s.name and d.feature_version = s.version"
        "   and d.feature = f.feature"
        " where s.kind = 'builtin' and (d.feature is null or d.formula = '' or d.unit = '')"
    ).fetchall()
    assert not rows
