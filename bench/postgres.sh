#!/usr/bin/env bash
# Measures PostgreSQL on this machine, for comparison: one INSERT of 1 KiB per commit, prepared, over loopback, with 1
# and with 64 clients. Prints a line of JSON for each, as `boki bench --beside` reads them.
#
#   bench/postgres.sh [SECONDS] [FOLDER]
#
# PostgreSQL has its defaults (fsync and synchronous_commit on). It runs as a server of its own in a temporary folder
# (inside FOLDER, so that it uses the same disk as what it is compared with), and is gone afterwards. Installs the
# Debian package postgresql if it is missing. Run it as root.
set -euo pipefail

seconds="${1:-10}"
within="${2:-${TMPDIR:-/tmp}}"
size=1024

find_bin() {
    find /usr/lib/postgresql -maxdepth 2 -name bin -type d 2>/dev/null | sort -V | tail -n 1
}

if [ "$(id -u)" != 0 ]; then
    echo "bench/postgres.sh: run it as root: it starts PostgreSQL as the user postgres" >&2
    exit 2
fi
bin="$(find_bin)"
if [ -z "$bin" ] || [ ! -x "$bin/pgbench" ]; then
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql postgresql-contrib >&2
    bin="$(find_bin)"
fi

folder="$(mktemp -d "$within/boki-postgres-XXXXXX")"
pid=""
finish() {
    if [ -n "$pid" ] && kill -INT "$pid" 2>/dev/null; then
        # Until it has ended, so that its files can go.
        tail --pid="$pid" -f /dev/null
    fi
    rm -rf "$folder"
}
trap finish EXIT
chown postgres: "$folder"

as_postgres() {
    setpriv --reuid=postgres --regid=postgres --init-groups -- env -C "$folder" "$@"
}
as_postgres "$bin/initdb" -D "$folder/data" -A trust -U postgres >/dev/null

# The first port that is free.
port=""
for candidate in $(seq 54310 54339); do
    if as_postgres "$bin/pg_ctl" -D "$folder/data" -w -s -l "$folder/log" \
        -o "-h 127.0.0.1 -p $candidate -k $folder" start 2>/dev/null; then
        port="$candidate"
        break
    fi
done
if [ -z "$port" ]; then
    cat "$folder/log" >&2
    exit 1
fi
pid="$(head -n 1 "$folder/data/postmaster.pid")"

sql() {
    as_postgres "$bin/psql" -h 127.0.0.1 -p "$port" -U postgres -qAt "$@"
}
version="$(sql -c 'show server_version' | cut -d' ' -f1)"
sql -c 'create table records (seq bigserial primary key, payload text not null)'
echo 'insert into records (payload) values (:payload);' > "$folder/insert.sql"
payload="$(head -c "$size" /dev/zero | tr '\0' x)"

for clients in 1 64; do
    echo "measuring: PostgreSQL, $clients clients" >&2
    threads=$((clients < 2 ? 1 : 2))
    rm -f "$folder"/latency.*
    # Warm first: the first inserts grow the table and its log files.
    for time in 2 "$seconds"; do
        rm -f "$folder"/latency.*
        as_postgres "$bin/pgbench" -h 127.0.0.1 -p "$port" -U postgres -n -M prepared -f "$folder/insert.sql" \
            -D payload="$payload" -c "$clients" -j "$threads" -T "$time" -l --log-prefix "$folder/latency" \
            > "$folder/pgbench" 2>&1 || { cat "$folder/pgbench" >&2; exit 1; }
    done
    per_second="$(awk '/^tps = / { print $3; exit }' "$folder/pgbench")"
    cat "$folder"/latency.* | awk '{ print $3 }' | sort -n > "$folder/sorted"
    quantile() {
        awk -v q="$1" '{ value[NR] = $1 } END { at = int(NR * q + 0.5); print value[at < 1 ? 1 : at] }' "$folder/sorted"
    }
    printf '{"name":"PostgreSQL %s, insert and commit","in_flight":%d,"per_second":%s,"p50_us":%s,"p99_us":%s}\n' \
        "$version" "$clients" "$per_second" "$(quantile 0.5)" "$(quantile 0.99)"
done
