#!/usr/bin/env python3
"""Measures the prefix index: key hashing, match and record, threads, memory, the hash ring.

    bench/prefix.py                    all of it, about a minute, 2 GB of memory at most
    bench/prefix.py match threads      some of: hash, match, full, threads, mixed, bound, ring

Blocks are 128 bytes, paths 128 blocks (a prompt of 16 KB) of which a quarter is shared with 63
other paths, holders 1,000 workers. `any` takes a path at random out of the whole index, which no
cache holds; `hot` one of 256; `sibling` is a new path of a known family, `none` an unknown one.
`full` is the same as `match` with the index over its bound, so that every new block evicts one.
In `threads` one thread, two threads and two processes take turns; two processes share nothing, so
their sum is what the machine can give. Times hold for one run on one quiet machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "build-bench" / "prefix_index"
SOURCES = ["bench/prefix_index.c", "src/fleet/prefix_index.c", "src/fleet/prefix_table.c",
           "src/fleet/prefix_key.c", "src/fleet/hash_ring.c", "src/base/hash.c", "src/base/mem.c",
           "src/base/pages.c", "src/base/panic.c", "src/base/str.c"]
BLOCKS, BYTES = 10_000_000, 512 << 20
CASES = ["hash", "match", "full", "threads", "mixed", "bound", "ring"]


def build():
    BINARY.parent.mkdir(exist_ok=True)
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-O2", "-D_GNU_SOURCE", "-Isrc",
                    *SOURCES, "-o", BINARY, "-lpthread"], cwd=ROOT, check=True)


def parsed(text):
    pairs = [line.split() for line in text.splitlines() if line]
    return {name: float(value) for name, value in pairs}


def run(*arguments):
    done = subprocess.run([BINARY, *map(str, arguments)], check=True, stdout=subprocess.PIPE,
                          text=True)
    return parsed(done.stdout)


def row(name, value):
    print(f"  {name:<46} {value}")


def micros(nanoseconds):
    return f"{nanoseconds / 1000:.2f} us"


def case_hash(_args):
    figures = run("hash")
    for name in [n for n in figures if n.endswith("_gb_s")]:
        size, piece = name[5:-5].split("_by_")
        row(f"key of {int(size):,} bytes in slices of {int(piece):,}",
            f"{figures[name]:.1f} GB/s, {figures[name[:-5] + '_us']:.2f} us")


def print_match(figures):
    row("entries, bytes", f"{figures['entries']:,.0f}, {figures['bytes']:,.0f}")
    for name in ("match_any", "match_hot", "match_sibling", "match_none", "record_again",
                 "record_new"):
        depth = f", depth {figures[name + '_depth']:.1f}" if name + "_depth" in figures else ""
        row(name, f"p50 {micros(figures[name + '_p50_ns'])}, "
                  f"p99 {micros(figures[name + '_p99_ns'])}{depth}")


def case_match(args):
    print_match(run("match", args.blocks, BYTES))


def case_full(args):
    print_match(run("match", args.blocks * 14 // 10, BYTES))


class Turn:
    """A process that measures when it is told to."""

    def __init__(self, case, args, threads, rounds):
        self.process = subprocess.Popen([BINARY, case, str(args.blocks), str(BYTES), str(threads),
                                         str(rounds)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        while self.process.stdout.readline().split()[0] != "ready":
            pass

    def start(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def rate(self):
        return float(self.process.stdout.readline().split()[1])

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def threads_case(case, args):
    both = Turn(case, args, 2, args.rounds)
    single = [Turn(case, args, 1, args.rounds) for _ in range(2)]
    ones, twos, sums = [], [], []
    for _ in range(args.rounds):
        both.start()
        twos.append(both.rate())
        ones.append(both.rate())
        for process in single:
            process.start()
        sums.append(sum(process.rate() for process in single))
    for process in [both, *single]:
        process.end()
    row("one thread", f"{statistics.median(ones):,.0f}/s")
    for name, rates in (("two threads", twos), ("two processes", sums)):
        ratio = statistics.median(rate / one for rate, one in zip(rates, ones))
        row(name, f"{statistics.median(rates):,.0f}/s, {ratio:.2f} x of one")


def case_threads(args):
    threads_case("threads", args)


def case_mixed(args):
    threads_case("mixed", args)


def case_bound(_args):
    figures = run("bound", 0, 64 << 20)
    row("blocks inserted, entries at the end", f"{figures['inserted']:,.0f}, "
                                               f"{figures['entries']:,.0f}")
    row("bound, bytes counted, resident", f"{figures['byte_limit']:,.0f}, {figures['bytes']:,.0f}, "
                                          f"{figures['resident']:,.0f}")
    row("time for a block", f"{figures['ns_per_block']:.0f} ns")
    row("shrunk to a quarter", f"{figures['shrunk_entries']:,.0f} entries, "
                               f"{figures['shrunk_bytes']:,.0f} bytes counted, "
                               f"{figures['shrunk_resident']:,.0f} resident, "
                               f"{figures['shrink_ms']:.0f} ms")


def case_ring(_args):
    figures = run("ring")
    for workers in (10, 1000, 4000):
        one = f"ring_{workers}_"
        row(f"{workers} workers", f"made in {figures[one + 'build_ms']:.2f} ms, "
                                  f"owner {figures[one + 'owner_ns']:.0f} ns, "
                                  f"fourth owner {figures[one + 'fourth_ns']:.0f} ns")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    p.add_argument("--blocks", type=int, default=BLOCKS, help="in the index (%(default)s)")
    p.add_argument("--rounds", type=int, default=7, help="of threads and mixed (%(default)s)")
    args = p.parse_args()
    for name in args.cases:
        if name not in CASES:
            sys.exit(f"prefix.py: '{name}' is none of {', '.join(CASES)}")
    build()
    for name in args.cases or CASES:
        print(f"{name} (load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs)")
        globals()[f"case_{name}"](args)


if __name__ == "__main__":
    main()
