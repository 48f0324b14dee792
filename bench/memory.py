"""Memory of a proxy with many idle connections, and with many streams at the same time."""

import json
import subprocess
import threading
import time

from procs import BUILD, BenchError, placed

STREAM_CHUNKS = 20
STREAM_INTERVAL_US = 1000000
SETTLE_S = 1.0


class Load:
    """The load generator in a mode with phases."""

    def __init__(self, args, **options):
        argv = [str(BUILD / "load")]
        for name, value in options.items():
            argv += ["--" + name.replace("_", "-"), str(value)]
        self.child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=placed(args.load_cpu))
        # The generator bounds itself with --timeout; this is for a generator that hangs.
        self.guard = threading.Timer(options["timeout"] * 3 + 30, self.child.kill)
        self.guard.start()

    def line(self):
        text = self.child.stdout.readline()
        if not text:
            raise BenchError(self.child.stderr.read().strip() or "the load generator ended")
        return json.loads(text)

    def phase(self, name):
        got = self.line()
        if got.get("phase") != name:
            raise BenchError(f"expected phase '{name}', got {got}")

    def go_on(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()

    def end(self):
        self.guard.cancel()
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate()


def lowest_rss(process, limit):
    """The least resident memory seen within the limit: giving back may take a while."""
    least, until = process.rss(), time.monotonic() + limit
    while time.monotonic() < until:
        time.sleep(0.25)
        least = min(least, process.rss())
    return least


def idle(args, proxy):
    """One request on each of N connections, all held, one more on each, closed."""
    start = proxy.process.rss()
    load = Load(args, mode="idle", port=proxy.port, connections=args.idle, timeout=60)
    try:
        load.phase("idle")
        time.sleep(SETTLE_S)
        held = proxy.process.rss()
        load.go_on()
        load.phase("reused")
        reused = proxy.process.rss()
        load.go_on()
        load.phase("closed")
        after = lowest_rss(proxy.process, 5)
        load.go_on()
        result = load.line()
    finally:
        load.end()
    bad = sum(result[k] for k in ("errors", "bad_status", "bad_length", "reconnects"))
    return {"connections": args.idle, "rss_start": start, "rss_held": held, "rss_reused": reused,
            "rss_after": after, "bytes_each": (held - start) / args.idle, "faults": bad,
            "all_usable": bad == 0 and result["responses"] == 2 * args.idle}


def peak_while(load, process):
    """Samples the memory until the generator prints its result. Returns peak and result."""
    answer = []
    reader = threading.Thread(target=lambda: answer.append(load.child.stdout.readline()))
    reader.start()
    peak = process.rss()
    while reader.is_alive():
        peak = max(peak, process.rss())
        reader.join(0.1)
    if not answer[0]:
        raise BenchError(load.child.stderr.read().strip() or "the load generator ended")
    return peak, json.loads(answer[0])


def streams(args, proxy):
    """N streams at the same time, from the first to the last chunk."""
    start = proxy.process.rss()
    load = Load(args, mode="streams", stream=1, port=proxy.stream_port, connections=args.streams,
                events=STREAM_CHUNKS + 1, ramp_ms=4000, timeout=90)
    try:
        load.phase("streaming")
        peak, result = peak_while(load, proxy.process)
    finally:
        load.end()
    bad = sum(result[k] for k in ("errors", "bad_status", "bad_length", "bad_stream"))
    return {"streams": args.streams, "rss_start": start, "rss_peak": peak, "faults": bad,
            "bytes_each": (peak - start) / args.streams,
            "all_served": bad == 0 and result["responses"] == args.streams}


def measure_one(args, proxy, stage, what):
    options = ("--chunks", STREAM_CHUNKS, "--interval-us", STREAM_INTERVAL_US)
    with stage(args, [proxy], *options) as running:
        if not running:
            return None
        try:
            return what(args, proxy)
        except (BenchError, OSError, ValueError) as e:
            print(f"bench: notice: {proxy.name}, {what.__name__}: {e}")
            return {"failed": str(e)}


def measure(args, proxies, stage):
    """memory[proxy] = {idle, streams}; every figure from a process of its own."""
    figures = {}
    for proxy in proxies:
        print(f"bench: memory of {proxy.name}: {args.idle} idle connections, "
              f"{args.streams} streams", flush=True)
        figures[proxy.name] = {"idle": measure_one(args, proxy, stage, idle),
                               "streams": measure_one(args, proxy, stage, streams)}
    return figures
