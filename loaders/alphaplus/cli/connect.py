"""Connection strings for the roles that commands work as."""

from __future__ import annotations

import os
from pathlib import Path

from psycopg import conninfo as pq


def role_conninfo(role: str, conninfo: str = "") -> str:
    """The connection given (or DATABASE_URL, PG*), as another role where its password is known.

    The password file of ``make up`` (ALPHAPLUS_PGPASS) is asked; without it, or without the role in
    it, the connection stays as it was given.
    """
    given = pq.make_conninfo(conninfo or os.environ.get("DATABASE_URL", ""))
    params = pq.conninfo_to_dict(given)
    pgpass = os.environ.get("ALPHAPLUS_PGPASS")
    if not pgpass or not Path(pgpass).exists():
        return given
    host = str(params.get("host") or os.environ.get("PGHOST", "localhost"))
    port = str(params.get("port") or os.environ.get("PGPORT", "5432"))
    for line in Path(pgpass).read_text().splitlines():
        fields = line.split(":", 4)
        if fields[:2] == [host, port] and fields[3:4] == [role]:
            return pq.make_conninfo(given, user=role, password=fields[4])
    return given


def superuser_conninfo(conninfo: str = "") -> str:
    """Connection string for migrating: the one given (or PG*), as a superuser.

    Where the user named is no superuser, the password file of ``make up`` (ALPHAPLUS_PGPASS) is
    asked for the server's ``postgres``.
    """
    given = pq.make_conninfo(conninfo or os.environ.get("DATABASE_URL", ""))
    user = pq.conninfo_to_dict(given).get("user") or os.environ.get("PGUSER")
    return role_conninfo("postgres", conninfo) if str(user).startswith("alphaplus_") else given
