#!/usr/bin/env bash
# What the journal costs: the same run against a topology with a journal that syncs and against one without, one after the
# other and changing places, PAIRS times. Prints both rates of each pair, their ratio and the median of the ratios; then, with
# the journal, the latency of acknowledgements at a fixed RATE, and how many bytes the process had written for each tick.
#
#   cargo build --release --workspace && benches/journal.sh
#   PAIRS=1 TICKS=200000 RATE=20k DURATION=2s BIN=target/debug benches/journal.sh     to see that it works
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-target/release} pairs=${PAIRS:-5} ticks=${TICKS:-10000000} series=${SERIES:-5000} rate=${RATE:-500k}
duration=${DURATION:-10s}

work=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

sed -e '/^  journal: /d' -e 's/from: journal,/from: ingest, /' topologies/edge.yaml >"$work/bare.yaml"
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
field() { python3 -c 'import json, sys; print(eval("json.load(open(sys.argv[1]))" + sys.argv[2]))' "$work/report" "$1"; }

start() {
    grpc=127.0.0.1:$(free_port) http=127.0.0.1:$(free_port)
    rm -rf "$work/data"
    "$bin/barline" run "$1" --quiet --data-dir "$work/data" --set specs="$PWD/specs" \
        --set ingest.listen="$grpc" --set http.listen="$http" >"$work/log" 2>&1 &
    server=$!
    until curl -fsS "http://$http/ready" >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
}
stop() {
    kill -TERM "$server"
    wait "$server" || { cat "$work/log" >&2; exit 1; }
    server=
}
load() {
    "$bin/loadgen" run --profile market --addr "http://$grpc" --series "$series" --connections 4 --json "$work/report" "$@" >/dev/null
}
flat_out() {
    start "$1"
    load --rate max --ticks "$ticks"
    field '["ticks_per_second"]'
    stop
}

for pair in $(seq "$pairs"); do
    if [ $((pair % 2)) = 1 ]; then
        with=$(flat_out topologies/edge.yaml) without=$(flat_out "$work/bare.yaml")
    else
        without=$(flat_out "$work/bare.yaml") with=$(flat_out topologies/edge.yaml)
    fi
    echo "$with $without"
done | tee "$work/pairs"
python3 - "$work/pairs" <<'END'
import statistics, sys
ratios = [float(a) / float(b) for a, b in map(str.split, open(sys.argv[1]))]
print(f"with a journal / without, median of {len(ratios)}: {statistics.median(ratios):.3f}", *(f"{ratio:.3f}" for ratio in ratios))
END

start topologies/edge.yaml
load --protocol barline.v1 --rate "$rate" --duration "$duration"
accepted=$(field '["ticks"]["accepted"]')
echo "acknowledgements at $rate: $(field '["ack_latency"]')"
written=$(awk '/^write_bytes/ { print $2 }' "/proc/$server/io")
stop
python3 -c "
written, accepted, stored = $written, $accepted, $(du -sB1 "$work/data" | cut -f1)
print(f'written {written / accepted:.2f} and on disk {stored / accepted:.2f} bytes per tick, of $accepted ticks')"
