#!/bin/bash
# Runs inside the server's root file system or container. "make" makes the database cluster,
# certificates, roles and passwords that are missing, "run" runs PostgreSQL in the foreground, both
# as the user the server will run as. Without a word, as root of a container: both, and in between
# the passwords become root's, so that the server cannot read them.
# State lives in $ALPHAPLUS_STATE: data, tls, run, logs, pgpass.
set -euo pipefail
: "${ALPHAPLUS_STATE:?}" "${ALPHAPLUS_PORT:=5432}" "${ALPHAPLUS_CLIENT_PORT:=$ALPHAPLUS_PORT}"
: "${ALPHAPLUS_HOSTS:=localhost 127.0.0.1}" "${ALPHAPLUS_LISTEN:=localhost}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=/usr/lib/postgresql/17/bin:$PATH
export PGDATA=$ALPHAPLUS_STATE/data
export PYTHONPATH=/opt/alphaplus/plpython:/opt/alphaplus/site PYTHONNOUSERSITE=1
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Compiled once for all backends: without it each would compile numpy anew, which takes a second.
export PYTHONPYCACHEPREFIX=$ALPHAPLUS_STATE/pycache
umask 077
roles="alphaplus_owner alphaplus_loader alphaplus_trainer alphaplus_app alphaplus_reader alphaplus_operator"

make_certificates() {
    local tls=$ALPHAPLUS_STATE/tls names="" host
    mkdir -p "$tls"
    for host in $ALPHAPLUS_HOSTS; do
        case $host in
            *[!0-9.]*) names+="DNS:$host," ;;
            *) names+="IP:$host," ;;
        esac
    done
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=AlphaPlus authority" \
        -keyout "$tls/ca.key" -out "$tls/ca.crt" -addext "basicConstraints=critical,CA:TRUE" 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" \
        -keyout "$tls/server.key" -out "$tls/server.csr" 2>/dev/null
    openssl x509 -req -in "$tls/server.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial \
        -days 3650 -extfile <(printf 'subjectAltName=%s\n' "${names%,}") -out "$tls/server.crt" 2>/dev/null
    rm "$tls/server.csr"
    chmod 755 "$tls"
    chmod 644 "$tls/ca.crt"
}

remember() { # remember ROLE PASSWORD: a line per host in the password file
    local host port
    for host in $ALPHAPLUS_HOSTS; do
        case $host in
            localhost | 127.*) port=$ALPHAPLUS_CLIENT_PORT ;;
            *) port=$ALPHAPLUS_PORT ;; # from another container
        esac
        echo "$host:$port:*:$1:$2" >>"$ALPHAPLUS_STATE/pgpass.new"
    done
}

make_cluster() {
    local fresh=$PGDATA.new password role
    rm -rf "$fresh" "$ALPHAPLUS_STATE/pgpass.new"
    password=$(openssl rand -hex 24)
    initdb -D "$fresh" -U postgres --pwfile=<(echo "$password") -A scram-sha-256 -E UTF8 \
        --locale-provider=builtin --locale=C.UTF-8 --data-checksums >/dev/null
    cat >"$fresh/pg_hba.conf" <<HBA
# TLS and SCRAM for everyone; the server's own system user needs no password on its socket.
local   all postgres      peer map=server
local   all all           scram-sha-256
hostssl all all      all  scram-sha-256
HBA
    printf 'server %s postgres\n' "$(id -un)" >"$fresh/pg_ident.conf"
    {
        echo "port = $ALPHAPLUS_PORT"
        echo "listen_addresses = '$ALPHAPLUS_LISTEN'"
        echo "unix_socket_directories = '$ALPHAPLUS_STATE/run'"
        echo "ssl_cert_file = '$ALPHAPLUS_STATE/tls/server.crt'"
        echo "ssl_key_file = '$ALPHAPLUS_STATE/tls/server.key'"
        echo "include = 'alphaplus.conf'"
    } >>"$fresh/postgresql.conf"
    "$here/postgresql.conf.sh" >"$fresh/alphaplus.conf"
    pg_ctl -D "$fresh" -w -s -o "-c listen_addresses='' -c cron.database_name=postgres" \
        -l "$ALPHAPLUS_STATE/first-start.log" start
    local psql=(psql -X -q -v ON_ERROR_STOP=1 -h "$ALPHAPLUS_STATE/run" -p "$ALPHAPLUS_PORT" -U postgres)
    "${psql[@]}" -d postgres -f "$here/roles.sql"
    remember postgres "$password"
    for role in $roles; do
        password=$(openssl rand -hex 24)
        # Nothing that this session says reaches a log, whatever becomes of it.
        {
            echo "set log_statement = none; set log_min_error_statement = panic;"
            echo "set log_min_duration_statement = -1;"
            echo "alter role $role password '$password';"
        } | "${psql[@]}" -d postgres
        remember "$role" "$password"
    done
    echo "create database alphaplus" | "${psql[@]}" -d postgres
    echo "grant connect on database alphaplus to alphaplus_operator" | "${psql[@]}" -d postgres
    pg_ctl -D "$fresh" -w -s stop
    mv "$ALPHAPLUS_STATE/pgpass.new" "$ALPHAPLUS_STATE/pgpass"
    mv "$fresh" "$PGDATA"
}

make_missing() {
    mkdir -p "$ALPHAPLUS_STATE/run"
    chmod 755 "$ALPHAPLUS_STATE/run"
    [ -f "$ALPHAPLUS_STATE/tls/server.crt" ] || make_certificates
    [ -f "$PGDATA/PG_VERSION" ] || make_cluster
}

run() {
    local logs=()
    "$here/postgresql.conf.sh" >"$PGDATA/alphaplus.conf"
    # A file an hour, each written over the next day: a day of logs, readable by the server alone. Of a
    # container the engine keeps them.
    if [ -n "${ALPHAPLUS_LOGS:-}" ]; then
        logs=(-c logging_collector=on -c "log_directory=$ALPHAPLUS_LOGS" -c log_filename=%H.log
            -c log_rotation_age=1h -c log_rotation_size=0 -c log_truncate_on_rotation=on -c log_file_mode=0600)
    fi
    exec postgres -D "$PGDATA" -c "port=$ALPHAPLUS_PORT" "${logs[@]}"
}

as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups /bin/bash "$0" "$@"; }

case ${1:-} in
    make) make_missing ;;
    run) run ;;
    *)
        if [ "$(id -u)" != 0 ]; then
            make_missing
            run
        fi
        chown postgres:postgres "$ALPHAPLUS_STATE"
        as_postgres make
        chown root:root "$ALPHAPLUS_STATE" "$ALPHAPLUS_STATE/pgpass" "$ALPHAPLUS_STATE/tls/ca.key"
        chmod 711 "$ALPHAPLUS_STATE"
        chmod 600 "$ALPHAPLUS_STATE/pgpass"
        mkdir -p "$ALPHAPLUS_STATE/pycache"
        chown postgres:postgres "$ALPHAPLUS_STATE/pycache"
        exec setpriv --reuid=postgres --regid=postgres --init-groups /bin/bash "$0" run
        ;;
esac
