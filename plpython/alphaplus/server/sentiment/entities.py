"""The assets that texts are about, as the database names them."""

from __future__ import annotations

from typing import Any

from alphaplus.texts.assets import Assets


def read(plpy: Any, cache: dict[str, Any]) -> Assets:
    """The assets of market.instruments and sentiment.asset_names; read anew where these changed."""
    plan = cache.get("sentiment.assets_plan")
    if plan is None:
        plan = plpy.prepare("select sentiment._assets_state() as state")
        cache["sentiment.assets_plan"] = plan
    state = plpy.execute(plan)[0]["state"]
    held = cache.get("sentiment.assets")
    if isinstance(held, tuple) and held[0] == state:
        found: Assets = held[1]
        return found
    rows = plpy.execute("select name, asset, is_ticker from sentiment.assets")
    made = Assets(
        ((r["name"], r["asset"]) for r in rows if r["is_ticker"]),
        ((r["name"], r["asset"]) for r in rows if not r["is_ticker"]),
    )
    cache["sentiment.assets"] = (state, made)
    return made
