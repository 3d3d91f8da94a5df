"""Candles for Superset, which has none: a picture drawn by a template of rectangles.

docker/dashboards/candles.sql wraps the query of the tile so that each row says where its rectangles
stand, in per cent of the picture; candles.html only puts them down. So it fits any width, and any
theme: what has no colour of its own has that of the text.
"""

from __future__ import annotations

from alphaplus.screens.tiles import FOLDER, Tile

COLOURS = {
    "bull_trending": "#2a9d64", "bear_trending": "#d1495b", "sideways": "#8d99ae",
    "high_volatility": "#f4a261", "low_volatility": "#4f9dde", "crash": "#6d2e8f",
}  # fmt: skip


def picture(tile: Tile) -> str:
    """The tile's query as rows that the template draws."""
    shades = ", ".join(f"('{name}', '{colour}')" for name, colour in COLOURS.items())
    text = (FOLDER / "candles.sql").read_text()
    return text.replace("{query}", tile.query.strip()).replace("{shades}", shades).strip()


def template(height: int) -> str:
    """The picture's template, so many pixels high."""
    return (FOLDER / "candles.html").read_text().replace("{height}", str(height))
