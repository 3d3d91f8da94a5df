"""Superset's assets from the list of tiles, and their import through its REST interface."""

from __future__ import annotations

import datetime as dt
import http.cookiejar
import io
import json
import os
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zipfile
from dataclasses import dataclass
from typing import Any

import psycopg
from alphaplus.screens import candles
from alphaplus.screens.tiles import Dashboard, Screens, Tile, load, notes, plain, render
from psycopg import conninfo as pq

NAMESPACE = uuid.UUID("6f0e4b5e-7a1d-4c39-9a55-3c1b0a7f1e11")
DATABASE = "AlphaPlus"
# What a filter says, as SQL. Superset's own names for a filter's values and the range of time.
_FILTER = (
    "{{% set v = filter_values('{name}', remove_filter=True) %}}"
    "{{% if v %}}'{{{{ v[0] | string | replace(\"'\", \"''\") }}}}'{{% else %}}null{{% endif %}}"
)
_END = (
    "{{% set t = get_time_filter(strftime='%Y-%m-%d %H:%M:%S+00') %}}"
    "{{% if t.{end}_expr %}}'{{{{ t.{end}_expr }}}}'{{% else %}}null{{% endif %}}::timestamptz"
)
_TYPES = {
    "int8": "BIGINT", "int4": "INTEGER", "int2": "INTEGER", "float8": "DOUBLE PRECISION",
    "numeric": "NUMERIC", "bool": "BOOLEAN", "timestamptz": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip
_ROW = 50 / 8  # Superset counts heights in steps of 8 pixels


class SupersetError(RuntimeError):
    """Superset refused, in its own words."""


@dataclass(frozen=True)
class Column:
    """A column of a query: its name and PostgreSQL's name of its type."""

    name: str
    type: str


def uid(kind: str, name: str) -> str:
    """The same asset has the same id on every import, so that it replaces itself."""
    return str(uuid.uuid5(NAMESPACE, f"{kind}/{name}"))


def templated(query: str) -> str:
    """A query whose parameters are what Superset's filters say."""

    def put(name: str) -> str:
        if name in ("from", "to"):
            return _END.format(end=name)
        value = _FILTER.format(name=name)
        return f"analytics.moment({value}::text)" if name == "as_of" else f"{value}::text"

    return render(query, put)


def sources(screens: Screens) -> dict[str, str]:
    """The datasets by name: a query each, of tiles, of filters and of what a page lacks."""
    found = {f"filter_{f.name}": f.query for f in screens.filters}
    for dashboard in screens.dashboards:
        found[f"notes_{dashboard.name}"] = notes(dashboard, screens.needs)
    for tile in screens.tiles:
        found[tile.name] = candles.picture(tile) if tile.kind == "candles" else tile.query
    return found


def assets(
    screens: Screens, uri: str, columns: dict[str, list[Column]], timestamp: str
) -> dict[str, dict[str, Any]]:
    """The files of an import: path to content.

    Args:
        screens: the list of tiles.
        uri: SQLAlchemy's address of the database, its password masked.
        columns: of each dataset.
        timestamp: of the import, ISO 8601.
    """
    found: dict[str, dict[str, Any]] = {
        "metadata.yaml": {"version": "1.0.0", "type": "assets", "timestamp": timestamp},
        f"databases/{DATABASE}.yaml": {
            "database_name": DATABASE, "sqlalchemy_uri": uri, "cache_timeout": None,
            "expose_in_sqllab": True, "allow_run_async": False, "allow_ctas": False,
            "allow_cvas": False, "allow_dml": False, "allow_file_upload": False,
            "extra": {"allows_virtual_table_explore": True, "engine_params": {
                "connect_args": {"options": "-c timezone=UTC -c intervalstyle=postgres"}}},
            "uuid": uid("database", DATABASE), "version": "1.0.0",
        },
    }  # fmt: skip
    for name, query in sources(screens).items():
        found[f"datasets/{DATABASE}/{name}.yaml"] = _dataset(name, query, columns[name])
    for dashboard in screens.dashboards:
        found[f"charts/notes_{dashboard.name}.yaml"] = _chart(
            f"notes_{dashboard.name}", dashboard.title, _notes(dashboard), dashboard.about
        )
        for tile in dashboard.tiles:
            found[f"charts/{tile.name}.yaml"] = _chart(
                tile.name,
                tile.title,
                params(tile, columns[tile.name]),
                screens.needs[tile.needs].hint,
            )
        found[f"dashboards/{dashboard.name}.yaml"] = _dashboard(dashboard, screens)
    return found


def _dataset(name: str, query: str, columns: list[Column]) -> dict[str, Any]:
    times = [c.name for c in columns if c.type == "timestamptz"]
    return {
        "table_name": name, "main_dttm_col": times[0] if times else None, "description": None,
        "default_endpoint": None, "offset": 0, "cache_timeout": None, "catalog": None,
        "schema": "analytics", "sql": templated(query), "params": None, "template_params": None,
        "filter_select_enabled": True, "fetch_values_predicate": None, "extra": None,
        "normalize_columns": False, "always_filter_main_dttm": False,
        "uuid": uid("dataset", name),
        "metrics": [
            {"metric_name": "count", "verbose_name": "COUNT(*)", "metric_type": "count",
             "expression": "COUNT(*)", "description": None, "d3format": None, "currency": None,
             "extra": {}, "warning_text": None}
        ],
        "columns": [
            {"column_name": c.name, "verbose_name": None, "is_dttm": c.type == "timestamptz",
             "is_active": True, "type": _TYPES.get(c.type, "TEXT"), "advanced_data_type": None,
             "groupby": True, "filterable": True, "expression": None, "description": None,
             "python_date_format": None, "extra": {}}
            for c in columns
        ],
        "version": "1.0.0", "database_uuid": uid("database", DATABASE),
    }  # fmt: skip


def _chart(name: str, title: str, form: dict[str, Any], about: str) -> dict[str, Any]:
    return {
        "slice_name": title, "description": about, "certified_by": None,
        "certification_details": None, "viz_type": form["viz_type"], "params": form,
        "query_context": None, "cache_timeout": None, "uuid": uid("chart", name),
        "version": "1.0.0", "dataset_uuid": uid("dataset", name),
    }  # fmt: skip


def _largest(column: str) -> dict[str, Any]:
    """A metric that is the column itself, of what is one row a group."""
    return {
        "expressionType": "SQL", "sqlExpression": f'MAX("{column}")', "label": column,
        "hasCustomLabel": True, "optionName": f"metric_{column}",
    }  # fmt: skip


def params(tile: Tile, columns: list[Column]) -> dict[str, Any]:
    """Superset's settings of a tile."""
    made = {
        "number": _number, "table": _table, "heatmap": _heatmap, "gantt": _gantt,
        "candles": _candles,
    }.get(tile.kind, _series)  # fmt: skip
    return made(tile, columns)


def _number(tile: Tile, columns: list[Column]) -> dict[str, Any]:
    return {
        "viz_type": "big_number_total", "metric": _largest(tile.y[0]), "adhoc_filters": [],
        "subheader": "", "header_font_size": 0.4, "subheader_font_size": 0.15,
        "y_axis_format": tile.format or ",d", "time_format": "smart_date",
    }  # fmt: skip


def _table(tile: Tile, columns: list[Column]) -> dict[str, Any]:
    floats = {c.name for c in columns if c.type in ("float8", "numeric")}
    whole = {c.name for c in columns if c.type in ("int8", "int4")}
    shown = {name: {"d3NumberFormat": ".6~g"} for name in floats}
    shown |= {name: {"d3NumberFormat": "d"} for name in whole}
    return {
        "viz_type": "table", "query_mode": "raw", "all_columns": [c.name for c in columns],
        "adhoc_filters": [], "order_by_cols": [], "row_limit": 1000, "server_page_length": 10,
        "page_length": 20, "include_search": True, "show_cell_bars": False, "color_pn": False,
        "table_timestamp_format": "%Y-%m-%d %H:%M", "allow_rearrange_columns": True,
        "column_config": shown,
    }  # fmt: skip


def _heatmap(tile: Tile, columns: list[Column]) -> dict[str, Any]:
    return {
        "viz_type": "heatmap_v2", "x_axis": tile.x, "groupby": tile.y[0],
        "metric": {**_largest(tile.value), "label": tile.unit or tile.value}, "adhoc_filters": [],
        "row_limit": 10000, "sort_x_axis": "alpha_asc", "sort_y_axis": "value_asc",
        "normalize_across": "heatmap", "legend_type": "continuous",
        "linear_color_scheme": "superset_seq_2", "xscale_interval": -1, "yscale_interval": 1,
        "left_margin": "auto", "bottom_margin": "auto", "value_bounds": [None, None],
        "y_axis_format": tile.format or "SMART_NUMBER", "x_axis_time_format": "smart_date",
        "show_legend": True, "show_percentage": False, "show_values": False,
    }  # fmt: skip


def _gantt(tile: Tile, columns: list[Column]) -> dict[str, Any]:
    return {
        "viz_type": "gantt_chart", "start_time": tile.x, "end_time": tile.x_to,
        "y_axis": tile.y[0], "series": tile.series, "subcategories": False,
        "tooltip_columns": [tile.y[0], tile.series], "tooltip_metrics": [], "adhoc_filters": [],
        "order_by_cols": [], "row_limit": 1000, "color_scheme": "supersetColors",
        "show_legend": True, "legendType": "scroll", "legendOrientation": "top",
        "x_axis_time_format": "%m-%d %H:%M", "tooltipTimeFormat": "%Y-%m-%d %H:%M:%S",
        "x_axis_time_bounds": [None, None], "x_axis_title": "time (UTC)", "x_axis_title_margin": 30,
        "y_axis_title": " ", "y_axis_title_margin": 230, "y_axis_title_position": "Left",
        "zoomable": False,
    }  # fmt: skip


def _candles(tile: Tile, columns: list[Column]) -> dict[str, Any]:
    return _handlebars(candles.template(50 * tile.height - 150), columns)


def _notes(dashboard: Dashboard) -> dict[str, Any]:
    template = (
        f'<div class="ap-notes"><p>{dashboard.about}</p>'
        "<ul>{{#each data}}{{#if hint}}<li><b>{{tiles}}</b>: {{hint}}</li>{{/if}}{{/each}}</ul>"
        "</div>"
    )
    return _handlebars(template, [Column("tiles", "text"), Column("hint", "text")])


def _handlebars(template: str, columns: list[Column]) -> dict[str, Any]:
    return {
        "viz_type": "handlebars", "query_mode": "raw", "all_columns": [c.name for c in columns],
        "adhoc_filters": [], "order_by_cols": [], "row_limit": 10000, "server_pagination": False,
        "handlebarsTemplate": template, "styleTemplate": "",
    }  # fmt: skip


def _series(tile: Tile, columns: list[Column]) -> dict[str, Any]:
    by_name = tile.kind in ("columns", "rows")
    over_time = any(c.name == tile.x and c.type == "timestamptz" for c in columns)
    filters = [
        {"clause": "WHERE", "comparator": "No filter", "expressionType": "SIMPLE",
         "operator": "TEMPORAL_RANGE", "subject": tile.x}
    ]  # fmt: skip
    kind = {
        "line": "line", "curve": "line", "step": "step", "area": "area", "scatter": "scatter"
    }.get(tile.kind, "bar")  # fmt: skip
    margin = 30 if tile.kind == "rows" else 60  # below, or beside the numbers
    form: dict[str, Any] = {
        "viz_type": "echarts_area" if kind == "area" else f"echarts_timeseries_{kind}",
        "x_axis": tile.x, "time_grain_sqla": None, "x_axis_sort_asc": True,
        "xAxisForceCategorical": by_name, "metrics": [_largest(y) for y in tile.y],
        "groupby": [tile.series] if tile.series else [],
        "adhoc_filters": filters if over_time else [], "order_desc": True, "row_limit": 10000,
        "truncate_metric": True, "show_empty_columns": True, "comparison_type": "values",
        "annotation_layers": [], "color_scheme": "supersetColors", "only_total": True,
        "show_legend": bool(tile.series) or len(tile.y) > 1, "legendType": "scroll",
        "legendOrientation": "top", "rich_tooltip": True, "showTooltipTotal": False,
        "x_axis_time_format": "%m-%d %H:%M", "tooltipTimeFormat": "%Y-%m-%d %H:%M",
        "x_axis_title": tile.x_unit, "x_axis_title_margin": 30 if tile.x_unit else 15,
        "y_axis_title": tile.y_unit, "y_axis_title_margin": margin if tile.y_unit else 15,
        "y_axis_title_position": "Left", "y_axis_format": tile.format or "SMART_NUMBER",
        "sort_series_type": "name" if tile.series else None, "sort_series_ascending": True,
        "markerEnabled": tile.markers,
        "markerSize": 5, "zoomable": False, "opacity": 0.3, "minorTicks": False,
        "truncateYAxis": tile.y_min is not None or kind in ("line", "step"),
        "y_axis_bounds": [tile.y_min, tile.y_max],
        "stack": "Stack" if tile.stacked else None, "connectNulls": True,
    }  # fmt: skip
    if kind == "step":
        form["seriesType"] = "end"
    if by_name:
        sort = tile.order != "none"
        form["orientation"] = "horizontal" if tile.kind == "rows" else "vertical"
        if tile.kind == "rows" and sort:
            form |= {"x_axis_sort": tile.y[0], "x_axis_sort_asc": True}
        else:
            form |= {"x_axis_sort": tile.x, "x_axis_sort_asc": True}
        if tile.kind == "columns":
            form |= {"xAxisLabelRotation": 30, "xAxisLabelInterval": "0"}
    return form


def _dashboard(dashboard: Dashboard, screens: Screens) -> dict[str, Any]:
    grid: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"id": "ROOT_ID", "type": "ROOT", "children": ["GRID_ID"]},
        "GRID_ID": {"id": "GRID_ID", "type": "GRID", "children": [], "parents": ["ROOT_ID"]},
        "HEADER_ID": {"id": "HEADER_ID", "type": "HEADER", "meta": {"text": dashboard.title}},
    }
    placed = [(f"notes_{dashboard.name}", dashboard.title, 12, 3)]
    placed += [(t.name, t.title, t.width, t.height) for t in dashboard.tiles]
    row, used = "", 12
    for name, title, width, height in placed:
        if used + width > 12:
            row, used = f"ROW-{name}", 0
            grid["GRID_ID"]["children"].append(row)
            grid[row] = {
                "id": row, "type": "ROW", "children": [], "parents": ["ROOT_ID", "GRID_ID"],
                "meta": {"background": "BACKGROUND_TRANSPARENT"},
            }  # fmt: skip
        used += width
        grid[row]["children"].append(f"CHART-{name}")
        grid[f"CHART-{name}"] = {
            "id": f"CHART-{name}", "type": "CHART", "children": [],
            "parents": ["ROOT_ID", "GRID_ID", row],
            "meta": {"uuid": uid("chart", name), "width": width, "height": round(height * _ROW),
                     "sliceName": title, "chartId": 0},
        }  # fmt: skip
    return {
        "dashboard_title": dashboard.title, "description": dashboard.about, "css": "",
        "slug": f"alphaplus-{dashboard.name}", "certified_by": "", "certification_details": "",
        "published": True, "uuid": uid("dashboard", dashboard.name), "version": "1.0.0",
        "position": grid,
        "metadata": {
            "native_filter_configuration": _filters(screens), "chart_configuration": {},
            "color_scheme": "supersetColors", "label_colors": {}, "shared_label_colors": [],
            "refresh_frequency": 0, "expanded_slices": {}, "timed_refresh_immune_slices": [],
            "cross_filters_enabled": False, "default_filters": "{}",
            "filter_bar_orientation": "HORIZONTAL",
        },
    }  # fmt: skip


def _filters(screens: Screens) -> list[dict[str, Any]]:
    empty: dict[str, Any] = {"extraFormData": {}, "filterState": {}, "ownState": {}}
    common = {
        "type": "NATIVE_FILTER", "cascadeParentIds": [], "defaultDataMask": empty,
        "scope": {"rootPath": ["ROOT_ID"], "excluded": []}, "description": "",
    }  # fmt: skip
    found: list[dict[str, Any]] = [
        {**common, "id": "NATIVE_FILTER-time", "name": "Time range", "filterType": "filter_time",
         "targets": [{}], "controlValues": {"enableEmptyFilter": False}}
    ]  # fmt: skip
    for f in screens.filters:
        found.append(
            {**common, "id": f"NATIVE_FILTER-{f.name}", "name": f.title,
             "filterType": "filter_select",
             "targets": [{"datasetUuid": uid("dataset", f"filter_{f.name}"),
                          "column": {"name": f.name}}],
             "controlValues": {
                 "multiSelect": False, "enableEmptyFilter": False, "defaultToFirstItem": False,
                 "inverseSelection": False, "searchAllOptions": False, "creatable": True,
                 "sortAscending": f.name != "as_of",
             }}
        )  # fmt: skip
    return found


def bundle(files: dict[str, dict[str, Any]]) -> bytes:
    """The files as the archive that Superset imports. JSON is YAML."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(f"alphaplus/{path}", json.dumps(content, indent=1))
    return held.getvalue()


class Client:
    """Superset's REST interface, logged in."""

    def __init__(self, address: str, user: str, password: str) -> None:
        self.address = address
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
        )
        self.headers = {"Referer": address}
        body = {"username": user, "password": password, "provider": "db", "refresh": False}
        got = self.json("POST", "/api/v1/security/login", body)
        self.headers["Authorization"] = f"Bearer {got['access_token']}"
        self.headers["X-CSRFToken"] = self.json("GET", "/api/v1/security/csrf_token/")["result"]

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """Ask, and read the answer as JSON."""
        data = None if body is None else json.dumps(body).encode()
        return self._ask(method, path, data, "application/json")

    def upload(self, path: str, name: str, content: bytes, fields: dict[str, str]) -> Any:
        """Send a file and fields as a form."""
        line = f"--{uuid.uuid4().hex}"
        parts = [
            f'{line}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        parts.append(
            f'{line}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.zip"\r\n'
            "Content-Type: application/zip\r\n\r\n".encode()
            + content
        )
        parts.append(f"\r\n{line}--\r\n".encode())
        return self._ask("POST", path, b"".join(parts), f"multipart/form-data; boundary={line[2:]}")

    def _ask(self, method: str, path: str, data: bytes | None, kind: str) -> Any:
        request = urllib.request.Request(
            self.address + path, data, {**self.headers, "Content-Type": kind}, method=method
        )
        try:
            with self.opener.open(request, timeout=300) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            words = error.read().decode(errors="replace")
            raise SupersetError(f"{method} {path}: {error.code} {words[:2000]}") from None


def publish(client: Client, files: dict[str, dict[str, Any]], password: str) -> None:
    """Import the files, replacing what is there, with the password of the database's reader."""
    client.upload(
        "/api/v1/assets/import/", "bundle", bundle(files),
        {"passwords": json.dumps({f"databases/{DATABASE}.yaml": password})},
    )  # fmt: skip


def address(params: dict[str, str]) -> str:
    """SQLAlchemy's address of a database, without its password, from libpq's words."""
    keep = {k: v for k, v in params.items() if k in ("sslmode", "sslrootcert")}
    host, port = params.get("host", "localhost"), params.get("port", "5432")
    return (
        f"postgresql+psycopg2://{urllib.parse.quote(params['user'])}:XXXXXXXXXX@{host}:{port}"
        f"/{urllib.parse.quote(params['dbname'])}?{urllib.parse.urlencode(keep)}"
    )


def described(conn: psycopg.Connection[Any], queries: dict[str, str]) -> dict[str, list[Column]]:
    """The columns of each query, as the database says."""
    found = {}
    for name, query in queries.items():
        cursor = conn.execute(f"select * from ({plain(query)}\n) q limit 0".encode())
        found[name] = [Column(c.name, c.type_display) for c in cursor.description or ()]
    return found


def update(address_of_superset: str, password: str, conninfo: str) -> dict[str, str]:
    """Import all dashboards into a Superset as its admin; slug to title of each.

    Args:
        address_of_superset: as http://127.0.0.1:8088.
        password: of its admin.
        conninfo: of the database, as the role that tiles read as.
    """
    screens = load()
    with psycopg.connect(conninfo) as conn:
        columns = described(conn, sources(screens))
        info = conn.info
        params = {
            **{k: str(v) for k, v in pq.conninfo_to_dict(conninfo).items()},
            "host": info.host, "port": str(info.port), "user": info.user, "dbname": info.dbname,
        }  # fmt: skip
        for name in ("sslmode", "sslrootcert"):
            if value := params.get(name) or os.environ.get(f"PG{name.upper()}"):
                params[name] = value
        now = dt.datetime.now(dt.UTC).isoformat()
        files = assets(screens, address(params), columns, now)
        client = Client(address_of_superset, "admin", password)
        publish(client, files, info.password)
    return {f"alphaplus-{d.name}": d.title for d in screens.dashboards}
