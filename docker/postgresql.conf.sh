#!/bin/sh
# Writes the server's settings, sized from this machine, to standard output. Half of the memory is
# taken to be the server's: the trainer and the loaders need the rest.
set -eu
memory_kb=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
for limit in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
    if [ -r "$limit" ]; then
        bytes=$(cat "$limit")
        case $bytes in
            *[!0-9]* | '') ;;
            *) [ ${#bytes} -lt 16 ] && [ $((bytes / 1024)) -lt "$memory_kb" ] && memory_kb=$((bytes / 1024)) ;;
        esac
    fi
done
cores=$(nproc)
share_mb=$((memory_kb / 2048))
at_least() { if [ "$1" -lt "$2" ]; then echo "$2"; else echo "$1"; fi; }
at_most() { if [ "$1" -gt "$2" ]; then echo "$2"; else echo "$1"; fi; }
shared_buffers=$(at_least $((share_mb / 4)) 128)
work_mem=$(at_most "$(at_least $((share_mb / 128)) 8)" 256)
maintenance=$(at_most "$(at_least $((share_mb / 16)) 64)" 2048)
wal=$(at_most "$(at_least $((share_mb / 3)) 1024)" 16384)
cat <<CONF
# Written by docker/postgresql.conf.sh at every start; put settings of your own into local.conf.
# Sized for $((memory_kb / 1024)) MB of memory, half of it the server's, and $cores cores.

# --- what AlphaPlus needs
shared_preload_libraries = 'timescaledb,pg_cron'
cron.database_name = 'alphaplus'        # pg_cron works in one database; the main one
cron.use_background_workers = on        # no connection, so no password, for the clock's calls
cron.max_running_jobs = 8
cron.timezone = 'UTC'
max_worker_processes = $((24 + 4 * cores))            # timescaledb, pg_cron, parallel workers
timescaledb.max_background_workers = 8
timescaledb.telemetry_level = off
timezone = 'UTC'
log_timezone = 'UTC'
jit = off                               # compiling costs more than it gains on these queries

# --- memory
shared_buffers = ${shared_buffers}MB
effective_cache_size = $((share_mb * 3 / 2))MB
work_mem = ${work_mem}MB
maintenance_work_mem = ${maintenance}MB

# --- parallelism
max_connections = 200
reserved_connections = 5                # for the operator and monitoring
max_parallel_workers = $cores
max_parallel_workers_per_gather = $(at_least $((cores / 2)) 1)

# --- writing
wal_compression = on
max_wal_size = ${wal}MB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
random_page_cost = 1.1                  # solid state
effective_io_concurrency = 200

# --- who may come in
password_encryption = 'scram-sha-256'
ssl = on
ssl_min_protocol_version = 'TLSv1.2'
log_connections = off
log_min_duration_statement = 5s
log_parameter_max_length = 200          # bytes of each parameter: artifacts are megabytes
log_parameter_max_length_on_error = 0   # leases and the like do not belong in a log
log_line_prefix = '%m [%p] %q%u@%d '
include_if_exists = 'local.conf'
CONF
