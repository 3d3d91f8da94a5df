"""Superset's settings: what it keeps is in the state folder; it listens to localhost only."""

import os
from pathlib import Path

from superset import config

STATE = Path(os.environ["ALPHAPLUS_SUPERSET"])

SECRET_KEY = (STATE / "secret_key").read_text().strip()
SQLALCHEMY_DATABASE_URI = f"sqlite:///{STATE / 'superset.db'}"
APP_NAME = "AlphaPlus"
# Queries of tiles hold what the filters say.
FEATURE_FLAGS = {"ENABLE_TEMPLATE_PROCESSING": True}
# A page asked for again within half a minute is not asked of the database again.
DATA_CACHE_CONFIG = {
    "CACHE_TYPE": "FileSystemCache",
    "CACHE_DIR": str(STATE / "cache"),
    "CACHE_DEFAULT_TIMEOUT": 30,
    "CACHE_THRESHOLD": 1000,
    "CACHE_KEY_PREFIX": "data_",
}
# What dashboards keep of one's filters.
FILTER_STATE_CACHE_CONFIG = {
    **DATA_CACHE_CONFIG,
    "CACHE_DEFAULT_TIMEOUT": 7776000,
    "CACHE_KEY_PREFIX": "filter_",
}
EXPLORE_FORM_DATA_CACHE_CONFIG = {**FILTER_STATE_CACHE_CONFIG, "CACHE_KEY_PREFIX": "explore_"}
# The candles are drawn by a template of rectangles; scripts and addresses stay forbidden.
HTML_SANITIZATION_SCHEMA_EXTENSIONS = {
    "tagNames": ["svg", "g", "rect", "line", "text", "title"],
    "attributes": {
        "*": [
            "className", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "fill", "fillOpacity",
            "stroke", "strokeOpacity", "textAnchor", "dominantBaseline", "fontSize", "overflow",
        ],
        "span": ["style"],
    },
}  # fmt: skip
# Nobody is asked to sign up, nothing is sent anywhere.
AUTH_USER_REGISTRATION = False
for policy in (config.TALISMAN_CONFIG, config.TALISMAN_DEV_CONFIG):
    rules = policy["content_security_policy"]
    rules["img-src"] = [source for source in rules["img-src"] if "scarf" not in source]
    # What draws the candles and the words above each page compiles its template in the browser.
    rules["script-src"] = [*rules["script-src"], "'unsafe-eval'"]
TALISMAN_CONFIG, TALISMAN_DEV_CONFIG = config.TALISMAN_CONFIG, config.TALISMAN_DEV_CONFIG
SESSION_COOKIE_NAME = "alphaplus_dashboards"
SESSION_COOKIE_SAMESITE = "Lax"
SQLLAB_TIMEOUT = SUPERSET_WEBSERVER_TIMEOUT = 60
ROW_LIMIT = 10000
