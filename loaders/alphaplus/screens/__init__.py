"""Dashboards: one list of tiles (docker/dashboards/tiles.toml), from which Superset's and Grafana's
are made."""
