"""The applier: brings a database to what ``migrations/`` and ``sql/`` say, or back.

``migrations/`` is state, applied once (yoyo reads and marks it) and frozen once released;
``sql/`` is logic, applied whole, every time. What is pending of the one, all of the other and the
marks that say so are one transaction: killed at any moment, a run leaves the database as it was,
still serving, and the next run does it all. Everything made belongs to ``alphaplus_owner``.

* ``files``: what is in the checkout, in which order, and whether released migrations are frozen;
* ``apply``: roles and extensions, then the one transaction;
* ``rollback``: migrations undone, newest first;
* ``check``: whether the database and the checkout fit;
* ``logic``: which functions, views and triggers sql/ made, and dropping them;
* ``users_views``: views that users made on ours, taken away meanwhile and given back;
* ``chain``: yoyo's migrations in a transaction that is already open;
* ``patience``: waiting for locks, and who holds them.
"""

from alphaplus.migrations.apply import Report, migrate
from alphaplus.migrations.check import check_frozen
from alphaplus.migrations.files import (
    ROOT,
    SCHEMAS,
    MigrationError,
    freeze,
    migration_files,
    sql_files,
)
from alphaplus.migrations.rollback import rollback

__all__ = [
    "ROOT",
    "SCHEMAS",
    "MigrationError",
    "Report",
    "check_frozen",
    "freeze",
    "migrate",
    "migration_files",
    "rollback",
    "sql_files",
]
