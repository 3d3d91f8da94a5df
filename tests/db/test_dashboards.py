"""Apache Superset with our dashboards, looked at by a browser: no error, every tile shows something."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alphaplus.screens import superset, tiles
from psycopg import conninfo as pq
from psycopg import sql

from tests.conftest import Server, free_port
from tests.db import screens_world

pytestmark = pytest.mark.long

Conn = psycopg.Connection[Any]
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docker" / "dashboards" / "superset"
SCREENS = tiles.load()
# What a browser is given so that it asks nobody anything.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip


@dataclass
class Site:
    """A Superset of the test's own, on a small world."""

    address: str
    password: str
    role: str
    conninfo: str
    db: Conn


@pytest.fixture(scope="module")
def site(
    db_module: Conn, admin: Conn, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    state = tmp_path_factory.mktemp("superset")
    env = {**os.environ, "ALPHAPLUS_STATE": str(state), "SUPERSET_PORT": str(free_port())}
    started = subprocess.run(
        [str(SCRIPT), "up"], env=env, capture_output=True, text=True, check=False, timeout=1500
    )
    if started.returncode:
        pytest.skip(f"SUPERSET ABSENT, its dashboards are not tried: {started.stderr}")
    try:
        screens_world.fill(db_module)
        # A reader of the test's own, whose password it may change.
        role = f"aptest_{os.getpid()}_reader"
        name = sql.Identifier(role)
        admin.execute(sql.SQL("create role {} login in role alphaplus_reader").format(name))
        admin.execute(sql.SQL("alter role {} password 'first'").format(name))
        conninfo = pq.make_conninfo(
            server.conninfo(db_module.info.dbname), user=role, password="first"
        )
        home = state / "superset"
        assert (home / "admin_password").stat().st_mode & 0o777 == 0o600
        assert (home / "secret_key").stat().st_mode & 0o777 == 0o600
        yield Site(
            f"http://127.0.0.1:{env['SUPERSET_PORT']}",
            (home / "admin_password").read_text().strip(), role, conninfo, db_module,
        )  # fmt: skip
        admin.execute(sql.SQL("drop role {}").format(name))
    finally:
        subprocess.run([str(SCRIPT), "down"], env=env, check=True, timeout=120)


@pytest.fixture(scope="module")
def client(site: Site) -> superset.Client:
    superset.update(site.address, site.password, site.conninfo)
    return superset.Client(site.address, "admin", site.password)


def counts(client: superset.Client) -> list[int]:
    return [
        client.json("GET", f"/api/v1/{kind}/")["count"]
        for kind in ("database", "dataset", "chart", "dashboard")
    ]


def ask(client: superset.Client, tile: tiles.Tile, filters: dict[str, str], **more: Any) -> Any:
    """The rows that Superset gets for a tile, with what the filters of its page say."""
    query = urllib.parse.quote(
        json.dumps({"filters": [{"col": "table_name", "opr": "eq", "value": tile.name}]})
    )
    found = client.json("GET", f"/api/v1/dataset/?q={query}")["result"]
    assert len(found) == 1
    columns = client.json("GET", f"/api/v1/dataset/{found[0]['id']}")["result"]["columns"]
    chosen = [{"col": name, "op": "IN", "val": [value]} for name, value in filters.items()]
    body = {
        "datasource": {"id": found[0]["id"], "type": "table"}, "force": True,
        "result_format": "json", "result_type": "full",
        "queries": [
            {"columns": [c["column_name"] for c in columns], "metrics": [], "orderby": [],
             "filters": chosen, "row_limit": 10000, "extras": {}, **more}
        ],
    }  # fmt: skip
    got = client.json("POST", "/api/v1/chart/data", body)["result"][0]
    assert not got.get("error"), (tile.name, got["error"])
    return got["data"]


def test_importing_twice_and_after_a_new_password_changes_nothing(
    site: Site, client: superset.Client, admin: Conn
) -> None:
    first = counts(client)
    assert first[0] == 1
    assert first[3] == len(SCREENS.dashboards)
    assert first[2] == len(SCREENS.tiles) + len(SCREENS.dashboards)
    superset.update(site.address, site.password, site.conninfo)
    assert counts(client) == first
    tile = next(t for t in SCREENS.tiles if t.name == "jobs")
    assert len(ask(client, tile, {})) == 2
    admin.execute(sql.SQL("alter role {} password 'second'").format(sql.Identifier(site.role)))
    site.conninfo = pq.make_conninfo(site.conninfo, password="second")
    superset.update(site.address, site.password, site.conninfo)
    assert counts(client) == first
    assert len(ask(client, tile, {})) == 2


def test_superset_reads_over_tls_as_a_reader_and_can_write_nothing(
    site: Site, client: superset.Client
) -> None:
    assert ask(client, SCREENS.tiles[0], {})
    found = site.db.execute(
        "select count(*) filter (where s.ssl), count(*) from pg_stat_activity a"
        " join pg_stat_ssl s using (pid) where a.usename = %s", (site.role,)
    ).fetchone()  # fmt: skip
    assert found is not None
    assert found[0] == found[1]
    with (
        psycopg.connect(site.conninfo) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("delete from ml.predictions")


@pytest.mark.parametrize("tile", SCREENS.tiles, ids=lambda t: t.name)
def test_the_filters_of_a_page_reach_the_query(
    site: Site, client: superset.Client, tile: tiles.Tile
) -> None:
    def plain(**values: str) -> int:
        return len(site.db.execute(tiles.plain(tile.query, **values).encode()).fetchall())

    if tile.kind == "candles":
        return
    one = {"symbol": screens_world.SYMBOL, "model": screens_world.MODEL}
    assert len(ask(client, tile, {})) == plain() > 0
    assert len(ask(client, tile, one)) == plain(**one)
    past = "2000-01-01 00:00+00"
    assert len(ask(client, tile, {"as_of": past})) == plain(as_of=past)
    late = {"from": "2024-06-29 18:00+00", "to": "2024-06-29 23:00+00"}
    spanned = ask(client, tile, {}, time_range="2024-06-29T18:00:00 : 2024-06-29T23:00:00")
    assert len(spanned) == plain(**late)


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip(
            "CHROMIUM ABSENT, no page is looked at: apt-get install chromium chromium-driver"
        )
    with tempfile.TemporaryDirectory() as folder:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={folder}", "--window-size=1400,5000"):
            options.add_argument(flag)
        made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        log_in(made, site)
        yield made
        made.quit()


def log_in(browser: Any, site: Site) -> None:
    browser.get(f"{site.address}/login/")
    wait(browser, lambda: browser.find_elements("css selector", "#username"))
    browser.find_element("css selector", "#username").send_keys("admin")
    browser.find_element("css selector", "#password").send_keys(site.password)
    browser.find_element("css selector", "#password").submit()
    wait(browser, lambda: "/login" not in browser.current_url)


def wait(browser: Any, until: Any, seconds: float = 180) -> None:
    begin = time.monotonic()
    while not until():
        assert time.monotonic() - begin < seconds, browser.find_element("tag name", "body").text
        time.sleep(0.25)


_LOADING = "[data-test=loading-indicator], .loading, [aria-label=Loading]"
_PICTURE = "canvas, svg rect, table tbody tr, .header-line, .ap-notes"


def look(browser: Any, site: Site, page: tiles.Dashboard) -> Any:
    """Every tile of a page once all are there."""
    browser.get(f"{site.address}/superset/dashboard/alphaplus-{page.name}/")

    def complete() -> bool:
        shown = browser.find_elements("css selector", ".dashboard-chart")
        return len(shown) == len(page.tiles) + 1 and not browser.find_elements(
            "css selector", _LOADING
        )

    wait(browser, complete)
    time.sleep(1)
    return browser.find_elements("css selector", ".dashboard-chart")


@pytest.mark.parametrize("page", SCREENS.dashboards, ids=lambda d: d.name)
@pytest.mark.parametrize("how", ["wide", "narrow", "dark"])
def test_every_tile_shows_something_and_none_an_error(
    site: Site, client: superset.Client, browser: Any, page: tiles.Dashboard, how: str
) -> None:
    browser.set_window_size(500 if how == "narrow" else 1400, 5000)
    mode = "dark" if how == "dark" else "default"
    browser.execute_script(f"localStorage.setItem('superset-theme-mode', '{mode}')")
    found = look(browser, site, page)
    for chart in found:
        text = chart.text
        assert not chart.find_elements(
            "css selector", "[role=alert], .ant-alert-error, .ant-empty"
        ), text
        for word in ("error", "Error", "violates", "No results"):
            # A column of jobs bears that name.
            assert word not in text or "Jobs, the newest first" in text, text
        assert chart.find_elements("css selector", _PICTURE), text
    background = browser.execute_script(
        "return getComputedStyle(document.querySelector('.dashboard-chart')"
        ".closest('.dashboard-component-chart-holder')).backgroundColor"
    )
    red = int(background.split("(")[1].split(",")[0])
    assert (red < 100) == (how == "dark"), background
    if folder := os.environ.get("ALPHAPLUS_PICTURES"):
        browser.save_screenshot(f"{folder}/{page.name}_{how}.png")
