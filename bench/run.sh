#!/usr/bin/env bash
# Measures Boki, PostgreSQL, Redis, NATS and the machine in one go, and prints a Markdown table of figures and ratios, the source of
# docs/benchmarks.md.
#
#   bench/run.sh [SECONDS] [FOLDER] > result.md
#
# SECONDS is the time for each figure, FOLDER is on the disk to measure. The others are left out where they cannot be run.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-5}"
folder="${2:-${TMPDIR:-/tmp}}"

[ -n "${BOKI_BIN:-}" ] || cargo build --release -p boki >&2
beside="$(mktemp)"
trap 'rm -f "$beside"' EXIT
export BOKI_BIN="${BOKI_BIN:-target/release/boki}"
for other in postgres redis nats; do
    if lines="$("bench/$other.sh" "$seconds" "$folder")"; then
        printf '%s\n' "$lines" >> "$beside"
    else
        echo "without $other: it could not be run" >&2
    fi
done

cpu="$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)"
kind="$(findmnt -n -o FSTYPE -T "$folder" 2>/dev/null || echo 'unknown file system')"
echo "Measured $(date -u +%Y-%m-%d) at commit $(git rev-parse --short HEAD) on ${cpu:-an unknown processor}, Linux $(uname -r), $kind;"
echo "$seconds s for each figure. Records of 1 KiB. The load runs on the same machine as the server."
echo
"$BOKI_BIN" bench all --seconds "$seconds" --dir "$folder" --format markdown --beside "$beside"
