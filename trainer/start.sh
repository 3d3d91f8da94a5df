#!/bin/bash
# The trainer in its container: waits for the server's password file and certificate (the volume
# /state, read-only), then works the queue as an unprivileged user.
set -euo pipefail
until [ -s /state/pgpass ] && [ -s /state/tls/ca.crt ]; do sleep 1; done
export PGHOST=${PGHOST:-db} PGPORT=${PGPORT:-5432} PGDATABASE=${PGDATABASE:-alphaplus}
PGPASSWORD=$(awk -F: -v host="$PGHOST" '$1 == host && $4 == "alphaplus_trainer" { print $5 }' /state/pgpass)
export PGUSER=alphaplus_trainer PGPASSWORD PGSSLMODE=verify-full PGSSLROOTCERT=/tmp/ca.crt
cp /state/tls/ca.crt /tmp/ca.crt
chmod 644 /tmp/ca.crt
export HOME=/tmp # root's own is closed to it
exec setpriv --reuid=trainer --regid=trainer --clear-groups /opt/alphaplus/venv/bin/python -m alphaplus.trainer
