#!/bin/sh
# What berthd costs while nothing happens: resident memory, and CPU over a minute, with simulated GPUs.
#
#   benches/idle.sh [SECONDS] [PROFILE] [BERTHD]      default: 60 dgx-h100 target/release/berthd
set -eu

seconds=${1:-60}
profile=${2:-dgx-h100}
berthd=${3:-target/release/berthd}

dir=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; rm -rf "$dir"' EXIT

"$berthd" --simulate "$profile" --node-name idle --kubelet-socket none \
  --listen 127.0.0.1:0 --admin 127.0.0.1:0 --socket "$dir/s.sock" --state-dir "$dir/state" 2>"$dir/log" &
pid=$!

# It serves once its socket is there; then let the start itself be over.
tries=0
until [ -S "$dir/s.sock" ]; do
  tries=$((tries + 1))
  [ "$tries" -le 100 ] || { cat "$dir/log" >&2; exit 1; }
  sleep 0.1
done
sleep 5

# Fields 14 and 15 of proc(5) stat, in ticks, behind the name in parentheses.
ticks() { sed 's/.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 }'; }

before=$(ticks)
sleep "$seconds"
after=$(ticks)
awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v seconds="$seconds" \
  -v rss="$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")" \
  -v threads="$(awk '/^Threads/ { print $2 }' "/proc/$pid/status")" \
  'BEGIN { printf "%.1f MiB resident, %.3f %% of a core over %d s, %d threads\n", rss / 1024, 100 * ticks / hz / seconds, seconds, threads }'
