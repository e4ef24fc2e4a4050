#!/usr/bin/env bash
# Measures Cloudflare's workerd on this machine, for comparison: a fetch handler that returns the request's body, under the
# same load as `boki bench call`, with 64 clients unless told otherwise. Prints the two tables of one run: workerd's, then
# Boki's call of a no-op.
#
#   bench/workerd.sh [SECONDS] [CLIENTS]
#
# Installs the npm package workerd 1.20261117.1 into a temporary folder, which is gone afterwards. Needs node and npm.
# BOKI_BIN names the binary; otherwise it is built.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-5}"
clients="${2:-64}"
version=1.20261117.1

command -v npm >/dev/null || { echo "bench/workerd.sh: npm is needed" >&2; exit 2; }
[ -n "${BOKI_BIN:-}" ] || cargo build --release -p boki >&2
boki="${BOKI_BIN:-target/release/boki}"

folder="$(mktemp -d)"
pid=""
finish() {
    if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

(cd "$folder" && npm init -y && npm install --no-audit --no-fund "workerd@$version") >"$folder/npm.log" 2>&1 ||
    { cat "$folder/npm.log" >&2; exit 1; }
workerd="$(find "$folder/node_modules/@cloudflare" -path '*/bin/workerd' -type f | head -n 1)"
[ -n "$workerd" ] || { echo "bench/workerd.sh: the package has no binary for this machine" >&2; exit 1; }

cat > "$folder/config.capnp" <<'END'
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [(name = "main", esModule = embed "worker.js")],
  compatibilityDate = "2026-11-01",
);
END
cat > "$folder/worker.js" <<'END'
export default {
  async fetch(request) {
    return new Response(await request.text(), { headers: { "content-type": "application/json" } });
  },
};
END

# It says on the control descriptor which port it has taken; the pipe ends when it ends before that.
mkfifo "$folder/control"
"$workerd" serve "$folder/config.capnp" --socket-addr http=127.0.0.1:0 --control-fd=3 \
    3>"$folder/control" >"$folder/workerd.log" 2>&1 &
pid=$!
exec 4<"$folder/control"
read -r ready <&4 || { cat "$folder/workerd.log" >&2; exit 1; }
port="$(sed -n 's/.*"port":\([0-9]*\).*/\1/p' <<< "$ready")"

"$boki" bench url "http://127.0.0.1:$port/" --body null --name "workerd $version, fetch handler" \
    --clients "$clients" --seconds "$seconds" --pid "$pid"
echo
"$boki" bench call --clients "$clients" --seconds "$seconds"
