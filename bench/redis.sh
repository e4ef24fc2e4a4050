#!/usr/bin/env bash
# Measures Redis streams on this machine, for comparison: XADD of one field, on disk before each answer (`appendfsync
# always`), by Redis's own `redis-benchmark`: with 64 connections that have one XADD in flight each, and with one connection that
# keeps so many in flight. Prints a line of JSON for each, as `boki bench --beside` reads them.
#
#   bench/redis.sh [SECONDS] [FOLDER] [SIZE] [PIPELINED]
#
# SIZE is the field's value in bytes (1024), PIPELINED how many are in flight on the one connection (1024). Redis runs as a server
# of its own in a temporary folder inside FOLDER, so that it uses the same disk as what it is compared with, and is gone afterwards.
# Installs the Debian packages redis-server and redis-tools if they are missing.
set -euo pipefail

seconds="${1:-10}"
within="${2:-${TMPDIR:-/tmp}}"
size="${3:-1024}"
pipelined="${4:-1024}"

if ! command -v redis-server >/dev/null || ! command -v redis-benchmark >/dev/null; then
    apt-get update -qq >&2
    # Its own service is neither wanted nor touched: a machine without one starts none.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server redis-tools >&2
fi

folder="$(mktemp -d "$within/boki-redis-XXXXXX")"
pid=""
finish() {
    if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

# The first port that is free. Nothing but the append-only file goes to the disk: no snapshots, and no rewriting of the file while it
# is measured.
port=""
for candidate in $(seq 56310 56339); do
    redis-server --port "$candidate" --bind 127.0.0.1 --dir "$folder" --save "" --appendonly yes --appendfsync always \
        --auto-aof-rewrite-percentage 0 --loglevel warning --logfile "$folder/log" >&2 &
    pid=$!
    until redis-cli -p "$candidate" ping >/dev/null 2>&1 || ! kill -0 "$pid" 2>/dev/null; do :; done
    if kill -0 "$pid" 2>/dev/null && [ "$(redis-cli -p "$candidate" config get dir | tail -n 1)" = "$(realpath "$folder")" ]; then
        port="$candidate"
        break
    fi
    wait "$pid" 2>/dev/null || true
    pid=""
done
[ -n "$port" ] || { cat "$folder/log" >&2; exit 1; }
version="$(redis-server --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p')"
payload="$(head -c "$size" /dev/zero | tr '\0' x)"

# `redis-benchmark` takes a number of requests, not a time: a short run says how many fill the time.
xadd() { # requests, arguments
    local requests="$1"
    shift
    redis-benchmark -p "$port" -n "$requests" --csv "$@" XADD records '*' payload "$payload" | tail -n 1 | tr -d '"'
}
measure() { # name, the figure it is compared with, how many in flight, arguments
    local name="$1" against="$2" in_flight="$3" line
    shift 3
    echo "measuring: $name" >&2
    line="$(xadd 40000 "$@")"
    redis-cli -p "$port" del records >/dev/null
    # CSV: test, requests per second, then latencies in ms: average, least, median, 95 %, 99 %, most.
    line="$(xadd "$(awk -F, -v s="$seconds" '{ n = NF - 6; print int($n * s) + 1 }' <<< "$line")" "$@")"
    redis-cli -p "$port" del records >/dev/null
    awk -F, -v name="$name" -v against="$against" -v in_flight="$in_flight" '{
        n = NF - 6
        printf "{\"name\":\"%s\",\"against\":\"%s\",\"in_flight\":%d,\"per_second\":%s,\"p50_us\":%d,\"p99_us\":%d}\n",
            name, against, in_flight, $n, $(n + 3) * 1000, $(n + 5) * 1000
    }' <<< "$line"
}
measure "Redis $version, XADD, appendfsync always, a connection each" "append, a connection each" 64 -c 64
measure "Redis $version, XADD, appendfsync always, one connection" append "$pipelined" -c 1 -P "$pipelined"
