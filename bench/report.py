"""Medians, ratios, aims and the tables."""

import statistics

MIB = 1024 * 1024


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def faults(sample):
    keys = ("errors", "bad_status", "bad_length", "bad_stream")
    return ", ".join(f"{sample[k]} {k.replace('_', ' ')}" for k in keys if sample[k])


def units(sample):
    """What a case counts: chunks when it streams, else answers."""
    return sample["events"] or sample["responses"]


def cpu_us(sample):
    if not sample or not sample["cpu_ns"] or not units(sample):
        return None
    return sample["cpu_ns"] / 1000 / units(sample)


def delay(sample, quantile):
    """Latency of an answer, or the time a chunk was under way."""
    return sample["event_transit" if sample["events"] else "latency"][quantile]


def paired(ours, theirs, figure, combine):
    """Median over the rounds of what `combine` makes of two figures of the same round."""
    made = []
    for a, b in zip(ours, theirs):
        x, y = (figure(a) if a else None), (figure(b) if b else None)
        made.append(combine(x, y) if x is not None and y else None)
    return median(made)


def ratio(case, name, base):
    if name not in case or base not in case:
        return None
    return paired(case[name], case[base], cpu_us, lambda x, y: x / y)


def added(case, name, base, quantile):
    if name not in case or base not in case or name == base:
        return None
    return paired(case[name], case[base], lambda s: delay(s, quantile), lambda x, y: x - y)


def summary(case, name):
    good = [s for s in case[name] if s]
    if not good:
        return None
    return {
        "cpu_us": median([cpu_us(s) for s in good]),
        "per_second": median([units(s) / s["seconds"] for s in good]),
        "p50_us": median([delay(s, "p50_us") for s in good]),
        "p99_us": median([delay(s, "p99_us") for s in good]),
        "first_event_p50_us": median([s["first_event"]["p50_us"] for s in good]),
        "added_p50_us": added(case, name, "direct", "p50_us"),
        "added_p99_us": added(case, name, "direct", "p99_us"),
        "busy": median([s["cpu_ns"] / 1e9 / s["seconds"] for s in good]),
        "rss": good[-1]["rss"],
        "to_relay": ratio(case, name, "relay"),
        "to_sluice": ratio(case, name, "sluice"),
        "faults": sum(s[k] for s in good
                      for k in ("errors", "bad_status", "bad_length", "bad_stream")),
        "rounds": len(good),
    }


def summarise(samples):
    return {case: {name: summary(by_name, name) for name in by_name}
            for case, by_name in samples.items()}


# ---- aims ----

CPU_AIMS = [
    # case, sluice against, at most, what
    ("c64", "haproxy", 1.05, "CPU per request, of HAProxy's"),
    ("c64", "nginx", 1.05, "CPU per request, of nginx's"),
    ("c64", "relay", 1.35, "CPU per request, of the bare relay's"),
    ("c64", "sglang-router", 1 / 3, "CPU per request, of sglang-router's"),
    ("sse", "relay", 1.3, "CPU per chunk, of the bare relay's"),
]
SLUICE_AIMS = [
    ("binary_bytes", 5e6, 1e6, "MB", "binary, stripped"),
    ("ready_ms", 50, 1, "ms", "start to ready"),
    ("rss_at_start", 12 * MIB, MIB, "MiB", "RSS at start"),
]


def aim(what, value, limit, unit=""):
    return {"what": what, "value": value, "limit": limit, "unit": unit, "met": value <= limit}


def cpu_aims(results):
    for case, base, limit, what in CPU_AIMS:
        value = ratio(results.get("samples", {}).get(case, {}), "sluice", base)
        if value is not None:
            yield aim(f"{case}: {what}", value, limit, "x")


def memory_aims(results):
    found = results.get("memory", {}).get("sluice") or {}
    idle, streams = found.get("idle") or {}, found.get("streams") or {}
    if "bytes_each" in idle:
        yield aim("bytes of each idle connection", idle["bytes_each"], 2048, "B")
        yield aim("RSS after they closed, over its start",
                  (idle["rss_after"] - idle["rss_start"]) / MIB, 6, "MiB")
        yield aim("idle connections not usable again", idle["faults"], 0)
    if "bytes_each" in streams:
        yield aim("bytes of each stream", streams["bytes_each"], 24 * 1024, "B")
        yield aim("streams not served to the end", streams["faults"], 0)


def rate_aims(case):
    ours, theirs = (added(case, n, "direct", "p99_us") for n in ("sluice", "sglang-router"))
    if ours is not None and theirs:
        yield aim("rate: added p99, of sglang-router's", ours / theirs, 1 / 3, "x")


def aims(results):
    found = list(cpu_aims(results))
    one = results.get("samples", {}).get("c1", {})
    for base, what in (("direct", "no proxy at all"), ("relay", "the bare relay")):
        over = added(one, "sluice", base, "p99_us")
        if over is not None:
            found.append(aim(f"c1: p99 over {what}", over, 60, "us"))
    found += rate_aims(results.get("samples", {}).get("rate", {}))
    for key, limit, scale, unit, what in SLUICE_AIMS:
        if key in results.get("sluice", {}):
            found.append(aim(what, results["sluice"][key] / scale, limit / scale, unit))
    return found + list(memory_aims(results))


# ---- tables ----


def cell(value, form="{:.1f}", scale=1):
    return "-" if value is None else form.format(value / scale)


def table(head, rows):
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                               for i, (c, w) in enumerate(zip(row, widths))).rstrip())


def case_row(name, s):
    return [name, cell(s["cpu_us"], "{:.2f}"), cell(s["to_relay"], "{:.2f}"),
            cell(s["to_sluice"], "{:.2f}"), cell(s["per_second"], "{:.0f}"), cell(s["p50_us"]),
            cell(s["p99_us"]), cell(s["added_p50_us"]), cell(s["added_p99_us"]),
            cell(s["busy"], "{:.0f}%", 0.01) if s["cpu_us"] else "-",
            cell(s["rss"] or None, "{:.1f}", MIB), str(s["faults"])]


def show_cases(results):
    for case, by_name in results.get("cases", {}).items():
        unit = "chunk" if case == "sse" else "req"
        print(f"\n{results['titles'][case]} (medians of {results['settings']['rounds']} rounds)")
        head = ["", f"CPU us/{unit}", "/relay", "/sluice", f"{unit}/s", "p50 us", "p99 us",
                "+p50", "+p99", "busy", "RSS MiB", "faults"]
        table(head, [case_row(n, s) for n, s in by_name.items() if s])


def memory_row(name, found):
    idle, streams = found["idle"] or {}, found["streams"] or {}
    return [name, cell(idle.get("rss_start"), "{:.1f}", MIB),
            cell(idle.get("bytes_each"), "{:.0f}"), {True: "all", False: "not all"}.get(
                idle.get("all_usable"), "-"),
            cell(idle["rss_after"] - idle["rss_start"] if "rss_after" in idle else None,
                 "{:+.1f}", MIB),
            cell(streams.get("bytes_each"), "{:.0f}"),
            {True: "all", False: "not all"}.get(streams.get("all_served"), "-")]


def show_memory(results):
    if "memory" not in results:
        return
    print("\nmemory")
    table(["", "start MiB", "B/idle conn", "usable", "closed MiB", "B/stream", "served"],
          [memory_row(n, f) for n, f in results["memory"].items()])


def show_aims(results):
    if not results["aims"]:
        return
    print("\nsluice against its aims")
    rows = [[a["what"], f"{a['value']:.2f} {a['unit']}".strip(),
             f"<= {a['limit']:.2f} {a['unit']}".strip(), "met" if a["met"] else "MISSED"]
            for a in results["aims"]]
    table(["", "seen", "aim", ""], rows)


def show(results):
    print()
    for line in results["versions"].values():
        print("  " + line)
    show_cases(results)
    show_memory(results)
    show_aims(results)
    for name, reason in results["skipped"].items():
        print(f"\n  {name} was left out: {reason}")
    print()
