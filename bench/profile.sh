#!/usr/bin/env bash
# Where the instructions of one request go, under the load of the benchmark's case c64.
#
#   bench/profile.sh stat [PROXY]        user instructions per request (perf stat; where the machine
#                                        has no counters, callgrind)
#   bench/profile.sh callgrind [PROXY]   the same under valgrind, and the dearest functions
#   bench/profile.sh record [PROXY]      perf record: the dearest functions by time, kernel included
#
# PROXY is sluice unless given. STREAM=1 profiles streams: figures are per chunk then. REQUESTS (of
# stat and record) and SLUICE_ARGS may be set. Data files stay in build-bench/.
set -euo pipefail

bench=$(cd "$(dirname "$0")" && pwd)
out=$bench/../build-bench
what=${1:-stat}
proxy=${2:-sluice}
unit=request
[ "${STREAM:-0}" = 1 ] && unit=chunk
export REQUESTS=${REQUESTS:-20000} STREAM=${STREAM:-0} OUT=$out

say() { printf 'profile: %s\n' "$*"; }
die() { printf 'profile: error: %s\n' "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is not installed"; }

# run COMMAND [WRAP]: the command runs while backend and proxy are up (BENCH_* tell it where).
run() {
    python3 "$bench/run.py" --proxies "$proxy" --sluice-args "${SLUICE_ARGS:-}" \
        --exec "$prelude $1" ${2:+--wrap "$2"}
}

# shellcheck disable=SC2016  # expanded by the shell that run.py starts
prelude='
port=$BENCH_PORT; [ "$STREAM" = 1 ] && port=$BENCH_STREAM_PORT
load() {
    n=$1; shift
    "$@" "$BENCH_LOAD" --port "$port" --connections 64 --stream "$STREAM" --requests "$n" \
        --window-ms 300000 --timeout 300 >"$OUT/profile-load.json" || exit 1
}
units() {
    key=responses_in_all; [ "$STREAM" = 1 ] && key=events
    sed "s/.*\"$key\":\([0-9]*\).*/\1/" "$OUT/profile-load.json"
}
warm=2000; [ "$STREAM" = 1 ] && { warm=128; REQUESTS=$((REQUESTS / 50)); }
load "$warm"
'

has_counters() {
    perf stat -x, -e instructions:u true 2>&1 | grep -q '^[0-9]'
}

stat() {
    if ! command -v perf >/dev/null || ! has_counters; then
        say "no hardware counters here: counting under callgrind instead"
        callgrind
        return
    fi
    # shellcheck disable=SC2016
    run 'load "$REQUESTS" perf stat -x, -o "$OUT/profile-stat.csv" \
            -e instructions:u,instructions:k,cycles:u,cycles:k,branch-misses:u,cache-misses:u \
            -p "$BENCH_PIDS" --
        awk -F, -v n="$(units)" "\$1 ~ /^[0-9]/ { printf \"  %-16s %12.1f\n\", \$3, \$1 / n }" \
            "$OUT/profile-stat.csv"'
    say "$proxy: per $unit"
}

# Instructions of a whole life with that many requests, all processes together.
counted_run() {
    rm -f "$out"/callgrind.out.*
    # shellcheck disable=SC2016
    run "load $1"' && units >"$OUT/profile-units"' \
        "valgrind -q --tool=callgrind --callgrind-out-file=$out/callgrind.out.%p" >&2
    awk '/^totals:/ { sum += $2 } END { printf "%.0f\n", sum }' "$out"/callgrind.out.*
}

# The difference of two runs leaves start and stop out.
callgrind() {
    need valgrind
    local few=1000 many=4000 before after units_before units_after
    [ "$STREAM" = 1 ] && few=64 many=192
    before=$(counted_run $few) units_before=$(cat "$out/profile-units")
    after=$(counted_run $many) units_after=$(cat "$out/profile-units")
    for file in "$out"/callgrind.out.*; do
        callgrind_annotate "$file" 2>/dev/null | grep -E '^ *[0-9,]+ \(' | sed -n '2,26p' || true
    done
    say "$proxy: $(((after - before) / (units_after - units_before))) user instructions per $unit"
}

record() {
    need perf
    # shellcheck disable=SC2016
    run 'load "$REQUESTS" perf record -q -g -F 4999 -o "$OUT/profile.data" -p "$BENCH_PIDS" --'
    perf report -i "$out/profile.data" --stdio --no-children -g none 2>/dev/null |
        grep -v '^#' | grep -v '^$' | sed -n '1,40p'
    say "more: perf report -i build-bench/profile.data"
}

case $what in
stat | callgrind | record) "$what" ;;
*) die "unknown '$what' (stat, callgrind or record)" ;;
esac
