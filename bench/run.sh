#!/usr/bin/env bash
# Measures Boki, PostgreSQL and the machine in one go, and prints a Markdown table of figures and ratios, the source of
# docs/benchmarks.md.
#
#   bench/run.sh [SECONDS] [FOLDER] > result.md
#
# SECONDS is the time for each figure, FOLDER is on the disk to measure. PostgreSQL is left out where it cannot be run.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-5}"
folder="${2:-${TMPDIR:-/tmp}}"

[ -n "${BOKI_BIN:-}" ] || cargo build --release -p boki >&2
beside="$(mktemp)"
trap 'rm -f "$beside"' EXIT
if ! bench/postgres.sh "$seconds" "$folder" > "$beside"; then
    echo "without PostgreSQL: it could not be run" >&2
    : > "$beside"
fi

cpu="$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)"
kind="$(findmnt -n -o FSTYPE -T "$folder" 2>/dev/null || echo 'unknown file system')"
echo "Measured $(date -u +%Y-%m-%d) at commit $(git rev-parse --short HEAD) on ${cpu:-an unknown processor}, Linux $(uname -r), $kind;"
echo "$seconds s for each figure. Records of 1 KiB. The load runs on the same machine as the server."
echo
"${BOKI_BIN:-target/release/boki}" bench all --seconds "$seconds" --dir "$folder" --format markdown --beside "$beside"
