#!/bin/bash
# Runs inside the server's root file system or container as the user the server will run as. Makes
# the database cluster, certificates, roles and passwords when they are missing; then runs
# PostgreSQL in the foreground. State lives in $ALPHAPLUS_STATE: data, tls, run, pgpass.
set -euo pipefail
: "${ALPHAPLUS_STATE:?}" "${ALPHAPLUS_PORT:=5432}" "${ALPHAPLUS_CLIENT_PORT:=$ALPHAPLUS_PORT}" "${ALPHAPLUS_HOSTS:=localhost 127.0.0.1}"
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
        echo "listen_addresses = '${ALPHAPLUS_LISTEN:-localhost}'"
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
        echo "alter role $role password '$password';" | "${psql[@]}" -d postgres
        remember "$role" "$password"
    done
    echo "create database alphaplus" | "${psql[@]}" -d postgres
    echo "grant connect on database alphaplus to alphaplus_operator" | "${psql[@]}" -d postgres
    pg_ctl -D "$fresh" -w -s stop
    mv "$ALPHAPLUS_STATE/pgpass.new" "$ALPHAPLUS_STATE/pgpass"
    mv "$fresh" "$PGDATA"
}

mkdir -p "$ALPHAPLUS_STATE/run"
chmod 755 "$ALPHAPLUS_STATE/run"
[ -f "$ALPHAPLUS_STATE/tls/server.crt" ] || make_certificates
[ -f "$PGDATA/PG_VERSION" ] || make_cluster
"$here/postgresql.conf.sh" >"$PGDATA/alphaplus.conf"
exec postgres -D "$PGDATA" -c "port=$ALPHAPLUS_PORT"
