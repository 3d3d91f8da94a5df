"""``python -m alphaplus.migrations freeze``: the release step."""

import sys

from alphaplus.migrations.files import freeze

if sys.argv[1:] != ["freeze"]:
    raise SystemExit("usage: python -m alphaplus.migrations freeze")
freeze()
