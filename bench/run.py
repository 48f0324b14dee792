#!/usr/bin/env python3
"""Measures sluice beside other proxies in front of one fast backend, on loopback, in one run.

bench/README.md says what the figures mean. `make bench` calls this without arguments.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memory
import procs
import report
from procs import (BENCH, BUILD, BenchError, Process, build_helpers, free_port, get,
                   placed, raise_descriptor_limit, wait_until)
from proxies import ALL, NAMES, Direct, Relay, Sluice

CASES = {
    "c1": {"title": "unstreamed, 4 KB chat body, concurrency 1", "connections": 1},
    "c64": {"title": "unstreamed, 4 KB chat body, concurrency 64", "connections": 64},
    "sse": {"title": "64 concurrent streams of 200 chunks", "connections": 64, "stream": 1},
    "rate": {"title": "unstreamed, 4 KB chat body, 64 connections, one given rate",
             "connections": 64, "mode": "rate"},
}
DEFAULT_CASES = "c1,c64,sse"


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--proxies", default=",".join(NAMES), help="comma-separated, of: %(default)s")
    p.add_argument("--cases", default=DEFAULT_CASES, help="comma-separated, of: " + ",".join(CASES))
    p.add_argument("--rounds", type=int, default=5, help="interleaved rounds (%(default)s)")
    p.add_argument("--window-ms", type=int, default=2000, help="measured time (%(default)s)")
    p.add_argument("--rate", type=int, default=4000, help="requests/s of the case rate")
    p.add_argument("--body-bytes", type=int, default=4096, help="chat body (%(default)s)")
    p.add_argument("--interval-us", type=int, default=5000,
                   help="time between two chunks of a stream (%(default)s)")
    p.add_argument("--memory", action="store_true", help="also idle connections and streams held")
    p.add_argument("--memory-only", action="store_true", help="only those")
    p.add_argument("--idle", type=int, default=15000, help="idle connections (%(default)s)")
    p.add_argument("--streams", type=int, default=9000, help="streams held (%(default)s)")
    p.add_argument("--sluice", help="the binary (build/sluice)")
    p.add_argument("--sluice-args", default="", help="more arguments for sluice, in one string")
    p.add_argument("--proxy-cpu", type=int, help="CPU of the proxies (the last one)")
    p.add_argument("--load-cpu", type=int, help="CPU of load and backend (the first one)")
    p.add_argument("--backend-cpu", type=int, help="CPU of the backend alone")
    p.add_argument("--nice", type=int, default=0,
                   help="priority of all processes, e.g. -15 on a machine that others use too")
    p.add_argument("--no-install", action="store_true", help="do not install the router's wheel")
    p.add_argument("--json", type=Path, help="write the results here as well")
    p.add_argument("--exec", help="start the first proxy, run this command, stop (profile.sh)")
    p.add_argument("--wrap", default="", help="run that proxy under this command (valgrind ...)")
    return p.parse_args()


def settings_complete(args, workdir):
    cpus = sorted(os.sched_getaffinity(0))
    args.workdir = Path(workdir)
    procs.nice = args.nice
    args.load_cpu = cpus[0] if args.load_cpu is None else args.load_cpu
    args.proxy_cpu = cpus[-1] if args.proxy_cpu is None else args.proxy_cpu
    args.backend_cpu = args.load_cpu if args.backend_cpu is None else args.backend_cpu
    if args.proxy_cpu == args.load_cpu:
        print("bench: notice: only one CPU: the proxy shares it with the load")
    for given, known in ((args.proxies, NAMES), (args.cases, list(CASES))):
        for name in filter(None, given.split(",")):
            if name not in known:
                sys.exit(f"bench: '{name}' is none of {', '.join(known)}")
    return args


def proxies_chosen(args):
    """Those asked for that can be run here, and why the others cannot."""
    chosen, skipped = [], {}
    for kind in ALL:
        if kind.name not in args.proxies.split(","):
            continue
        proxy = kind(args)
        reason = proxy.missing()
        if reason:
            skipped[proxy.name] = reason
            print(f"bench: notice: {proxy.name} is left out: {reason}")
        else:
            chosen.append(proxy)
    return chosen, skipped


def backend_start(args, *options):
    log = args.workdir / "backend.log"
    backend = Process([BUILD / "backend", "--port", 0, *options], args.backend_cpu, log)
    while not log.read_text().endswith("\n"):
        if not backend.alive():
            raise BenchError(f"backend: {backend.log_tail()}")
        time.sleep(0.01)
    return backend, int(log.read_text().split()[1])


@contextlib.contextmanager
def stage(args, proxies, *backend_options):
    """Backend and proxies, started and ready; a proxy that does not start is left out."""
    backend, port = backend_start(args, *backend_options)
    running = []
    try:
        for proxy in proxies:
            try:
                proxy.start(port)
                running.append(proxy)
            except BenchError as e:
                print(f"bench: notice: {proxy.name} is left out: {e}")
        yield running
    finally:
        for proxy in running:
            proxy.stop()
        backend.stop()


def load_command(args, proxy, case):
    options = {"mode": "closed", "window-ms": args.window_ms, "body-bytes": args.body_bytes,
               "timeout": 30 + args.window_ms // 1000}
    options.update({k: v for k, v in CASES[case].items() if k != "title"})
    if options["mode"] == "rate":
        options["rate"] = args.rate
    if options.get("stream"):  # spreads the streams' chunks evenly over the interval
        options["ramp-ms"] = max(1, args.interval_us // 1000)
    options["port"] = proxy.stream_port if options.get("stream") else proxy.port
    if proxy.process:
        options["pids"] = ",".join(map(str, proxy.process.pids()))
    return [str(BUILD / "load")] + [str(x) for k, v in options.items() for x in (f"--{k}", v)]


def load_run(args, proxy, case):
    """One measurement; None, with a notice, when it failed."""
    try:
        done = subprocess.run(load_command(args, proxy, case), capture_output=True, text=True,
                              timeout=120 + args.window_ms // 1000, check=False,
                              start_new_session=True, preexec_fn=placed(args.load_cpu))
    except subprocess.TimeoutExpired:
        print(f"bench: notice: {proxy.name}, {case}: the load generator hung")
        return None
    if not done.stdout.strip():
        print(f"bench: notice: {proxy.name}, {case}: {done.stderr.strip()}")
        return None
    sample = json.loads(done.stdout.strip().splitlines()[-1])
    sample["rss"] = proxy.process.rss() if proxy.process else 0
    if done.returncode:
        print(f"bench: notice: {proxy.name}, {case}: " + report.faults(sample))
    return sample


def measure(args, proxies):
    """samples[case][proxy] = one per round, None where one failed."""
    cases = args.cases.split(",")
    samples = {case: {p.name: [] for p in proxies} for case in cases}
    for round_number in range(args.rounds):
        for case in cases:
            print(f"bench: round {round_number + 1}/{args.rounds}: {CASES[case]['title']}",
                  flush=True)
            for proxy in proxies:
                samples[case][proxy.name].append(load_run(args, proxy, case))
    return samples


def sluice_figures(args, sluice):
    """Size of the stripped binary, start to ready (median of five) and resident memory then."""
    stripped = args.workdir / "stripped"
    subprocess.run(["strip", "-o", str(stripped), str(sluice.binary())], check=False,
                   capture_output=True, timeout=30)
    size = stripped.stat().st_size if stripped.exists() else sluice.binary().stat().st_size
    backend, port = backend_start(args)
    times, rss = [], []
    try:
        for _ in range(5):
            sluice.port = sluice.stream_port = free_port()
            log = args.workdir / "sluice-start.log"
            process = Process(sluice.command(port), args.proxy_cpu, log)
            try:
                times.append(wait_until(process, sluice.port, get("/readiness"), 15, 0.001))
                rss.append(process.rss())
            finally:
                process.stop()
    finally:
        backend.stop()
    return {"binary_bytes": size, "ready_ms": report.median(times) * 1000,
            "rss_at_start": report.median(rss)}


def machine():
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((l.split(":", 1)[1].strip() for l in lines if l.startswith("model name")), "")
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "tcp_congestion_control": congestion, "load_average": os.getloadavg()[0]}


def results_write(args, results):
    folder = BENCH / "results"
    folder.mkdir(exist_ok=True)
    paths = [folder / time.strftime("%Y%m%d-%H%M%S.json")] + ([args.json] if args.json else [])
    for path in paths:
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"bench: written to {path}")


def run_benchmark(args):
    proxies, skipped = proxies_chosen(args)
    results = {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine(),
               "settings": {"rounds": args.rounds, "window_ms": args.window_ms,
                            "body_bytes": args.body_bytes, "interval_us": args.interval_us,
                            "nice": args.nice, "sluice_args": args.sluice_args},
               "versions": {p.name: p.version() for p in proxies if p.version()},
               "skipped": skipped, "titles": {c: CASES[c]["title"] for c in CASES}}
    if not args.memory_only:
        with stage(args, proxies, "--interval-us", args.interval_us) as running:
            results["rss_at_start"] = {p.name: p.rss_at_start for p in running if p.process}
            results["samples"] = measure(args, running)
        results["cases"] = report.summarise(results["samples"])
        for proxy in proxies:
            if isinstance(proxy, Sluice):
                results["sluice"] = sluice_figures(args, proxy)
    if args.memory or args.memory_only:
        # The relay holds nothing but descriptors, and an upstream one for each idle client.
        subjects = [p for p in proxies if not isinstance(p, (Direct, Relay))]
        results["memory"] = memory.measure(args, subjects, stage)
    results["aims"] = report.aims(results)
    report.show(results)
    results_write(args, results)


def run_command(args):
    """Runs args.exec while the first proxy is up; the command finds it through BENCH_*."""
    proxies, _ = proxies_chosen(args)
    if not proxies:
        raise BenchError("no proxy to run")
    backend, port = backend_start(args, "--interval-us", args.interval_us)
    try:
        proxies[0].start(port, args.wrap.split())
        env = dict(os.environ, BENCH_PID=str(proxies[0].process.pid),
                   BENCH_PIDS=",".join(map(str, proxies[0].process.pids())),
                   BENCH_PORT=str(proxies[0].port), BENCH_STREAM_PORT=str(proxies[0].stream_port),
                   BENCH_LOAD=str(BUILD / "load"))
        os.sched_setaffinity(0, {args.load_cpu})
        return subprocess.run(["sh", "-c", args.exec], env=env, check=False).returncode
    finally:
        proxies[0].stop()
        backend.stop()


def main():
    args = arguments()
    # Ended from outside, it still has to stop what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    raise_descriptor_limit()
    build_helpers()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as workdir:
        os.chmod(workdir, 0o755)
        args = settings_complete(args, workdir)
        try:
            if args.exec:
                return run_command(args)
            run_benchmark(args)
        except BenchError as e:
            sys.exit(f"bench: error: {e}")
        except KeyboardInterrupt:
            sys.exit("bench: stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
