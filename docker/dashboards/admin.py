"""The administrator of Superset, his password in the state folder; runs in Superset's Python."""

import os
from pathlib import Path

from superset.app import create_app

password = (Path(os.environ["ALPHAPLUS_SUPERSET"]) / "admin_password").read_text().strip()
app = create_app()
with app.app_context():
    manager = app.appbuilder.sm
    user = manager.find_user("admin")
    if user is None:
        role = manager.find_role("Admin")
        user = manager.add_user("admin", "Admin", "AlphaPlus", "admin@localhost", role, password)
        if not user:
            raise SystemExit("the administrator could not be made")
    else:
        manager.reset_password(user.id, password)
