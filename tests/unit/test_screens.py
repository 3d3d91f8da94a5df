"""The list of tiles, what is made of it, and what `make dashboards` says when it cannot."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alphaplus.screens import candles, grafana, superset, tiles
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docker" / "dashboards" / "superset"
SCREENS = tiles.load()


def test_the_list_has_the_pages_that_people_look_for() -> None:
    assert [d.title for d in SCREENS.dashboards] == [
        "Training", "Drift", "Model", "Inference", "Market and risk", "Back-tests",
    ]  # fmt: skip
    for tile in SCREENS.tiles:
        if tile.kind not in ("table", "number"):
            assert tile.y or tile.value, tile.name
            assert tile.x, tile.name
        if tile.kind in ("line", "area", "bar", "curve", "step"):
            assert tile.x_unit, tile.name
            assert tile.y_unit, tile.name


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "candles"', 'kind = "cande"', "unknown kind"),
        ('needs = "bars"', 'needs = "barss"', "unknown need"),
        ("width = 12", "width = 13", "width"),
        ("width = 12", 'width = "12"', "width"),
        ('name = "candles"', 'name = "regimes"', "two tiles"),
        ('x_unit = "time (UTC)"', 'x_units = "time (UTC)"', "x_units"),
    ],
)
def test_a_list_with_a_slip_says_where(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (tiles.FOLDER / "tiles.toml").read_text()
    assert old in text
    (tmp_path / "tiles.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
        tiles.load(tmp_path / "tiles.toml")


def test_a_value_is_put_in_as_a_literal() -> None:
    query = "select {symbol}, {model}, {as_of}, {from}, {to}, '{x}'"
    assert tiles.plain(query, symbol="O'Hara") == (
        "select 'O''Hara'::text, null::text, analytics.moment(null), null::timestamptz,"
        " null::timestamptz, '{x}'"
    )


def test_every_asset_has_an_id_of_its_own_and_keeps_it() -> None:
    names = superset.sources(SCREENS)
    columns = {name: [superset.Column("ts", "timestamptz")] for name in names}
    first = superset.assets(SCREENS, "postgresql://x", columns, "2026-01-01T00:00:00+00:00")
    second = superset.assets(SCREENS, "postgresql://x", columns, "2026-01-01T00:00:00+00:00")
    assert first == second
    ids = [content["uuid"] for path, content in first.items() if path != "metadata.yaml"]
    assert len(ids) == len(set(ids))
    for dashboard in SCREENS.dashboards:
        grid = first[f"dashboards/{dashboard.name}.yaml"]["position"]
        widths = [
            sum(grid[chart]["meta"]["width"] for chart in part["children"])
            for part in grid.values()
            if isinstance(part, dict) and part.get("type") == "ROW"
        ]
        assert max(widths) <= 12
        shown = {
            p["meta"]["uuid"]
            for p in grid.values()
            if isinstance(p, dict) and p.get("type") == "CHART"
        }
        assert {superset.uid("chart", tile.name) for tile in dashboard.tiles} < shown


def test_every_regime_has_a_colour() -> None:
    states = (ROOT / "sql" / "regime" / "states.sql").read_text()
    assert all(f"'{name}'" in states for name in candles.COLOURS)
    assert len(set(candles.COLOURS.values())) == len(candles.COLOURS) == 6


def test_the_files_for_grafana_are_fresh() -> None:
    assert grafana.write(check=True) == []


def missing(read: Any, written: Any, where: str = "") -> list[str]:
    """What was written and is not read so; reading adds defaults."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [w for k, v in written.items() for w in missing(read.get(k), v, f"{where}.{k}")]
    if isinstance(written, list) and isinstance(read, list) and len(read) == len(written):
        return [w for i, v in enumerate(written) for w in missing(read[i], v, f"{where}[{i}]")]
    return [] if read == written else [f"{where}: {written!r} is read as {read!r}"]


@pytest.mark.parametrize("name", [d.name for d in SCREENS.dashboards])
def test_grafanas_own_types_read_the_files_and_lose_nothing(name: str) -> None:
    register_default_plugins()
    text = (tiles.FOLDER / "grafana" / f"{name}.json").read_text()
    raw = json.loads(text)
    # Its Python types know no PostgreSQL query and no annotation's.
    read = Dashboard.from_json(json.loads(text))
    again = json.loads(JSONEncoder().encode(read))
    for key in ("title", "uid", "time", "templating", "timezone", "tags", "editable"):
        assert again[key] == raw[key], key
    for mine, theirs in zip(raw["panels"], again["panels"], strict=True):
        mine.pop("targets", None)
        theirs.pop("targets", None)
        assert missing(theirs, mine) == []
    places = [p["gridPos"] for p in raw["panels"]]
    for i, a in enumerate(places):
        assert a["x"] + a["w"] <= 24
        for b in places[:i]:
            beside = a["x"] >= b["x"] + b["w"] or b["x"] >= a["x"] + a["w"]
            assert beside or a["y"] >= b["y"] + b["h"] or b["y"] >= a["y"] + a["h"]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(word: str = "up", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), word], capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, "ALPHAPLUS_STATE": str(tmp_path / "state"), **env},
        )  # fmt: skip

    return call


Start = Callable[..., subprocess.CompletedProcess[str]]


def test_a_taken_port_is_said(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = start(SUPERSET_PORT=str(port))
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert f"SUPERSET_PORT={port + 1} make dashboards" in done.stderr


def test_too_little_memory_is_said(start: Start, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 2000000 kB\nMemAvailable:   512000 kB\n")
    done = start(SUPERSET_PORT="1", ALPHAPLUS_MEMINFO=str(tmp_path / "meminfo"))
    assert done.returncode == 1
    assert "500 MB of memory are free" in done.stderr


def test_no_network_is_said(start: Start, tmp_path: Path) -> None:
    done = start(
        SUPERSET_PORT="1", ALPHAPLUS_SUPERSET_VENV=str(tmp_path / "venv"), PIP_RETRIES="0",
        PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="",
        PIP_NO_CACHE_DIR="1", PIP_CONFIG_FILE="/dev/null",
    )  # fmt: skip
    assert done.returncode == 1
    assert "is the network reachable?" in done.stderr
    assert "docker/dashboards/grafana" in done.stderr


def test_what_does_not_run_is_stopped_without_a_word_and_another_process_is_left_alone(
    start: Start, tmp_path: Path
) -> None:
    assert start("down").returncode == 0
    assert start("status").returncode == 3
    other = subprocess.Popen(["sleep", "60"])
    try:
        folder = tmp_path / "state" / "superset"
        folder.mkdir(parents=True)
        (folder / "pid").write_text(str(other.pid))
        assert start("down").returncode == 0
        time.sleep(0.1)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert start("sideways").returncode == 2
