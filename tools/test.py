#!/usr/bin/env python3
"""Runs tests of one build: tools/test.py [--build DIR] [--unit-build DIR] [unit] [e2e]

Unit tests are the cmocka programs of the build, read as TAP; the end-to-end tests are
tests/e2e/run, which drives the built binary with pytest. Progress goes to stdout; the last line is
`N passed, N failed`, the sum of all cases. A program that dies counts its missing cases as failed.
"""

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Tally:
    """Cases passed and failed."""

    def __init__(self, passed=0, failed=0):
        self.passed, self.failed = passed, failed

    def __iadd__(self, other):
        self.passed += other.passed
        self.failed += other.failed
        return self

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed"


def read_tap(text, status):
    """The cases of a TAP stream; what was planned and never reported has failed."""
    planned = sum(int(n) for n in re.findall(r"^1\.\.(\d+)", text, re.MULTILINE))
    passed = len(re.findall(r"^ok \d+", text, re.MULTILINE))
    passed -= len(re.findall(r"^ok \d+ # SKIP", text, re.MULTILINE))
    skipped = len(re.findall(r"^(?:not )?ok \d+ # SKIP", text, re.MULTILINE))
    failed = len(re.findall(r"^not ok \d+(?! # SKIP)\b", text, re.MULTILINE))
    failed += max(0, planned - passed - failed - skipped)
    if (status != 0 and failed == 0) or passed + failed + skipped == 0:
        failed += 1
    return Tally(passed, failed)


def read_pytest(text, status):
    """The sum of pytest's closing lines (`== 3 passed, 1 failed in 2.1s ==`)."""
    tally, seen = Tally(), False
    for line in re.findall(r"^=*\s*(\d+ \w+.* in [\d.]+s.*?)=*$", text, re.MULTILINE):
        seen = True
        for count, word in re.findall(r"(\d+) (passed|failed|errors?)\b", line):
            tally += Tally(int(count), 0) if word == "passed" else Tally(0, int(count))
    if not seen or (status != 0 and tally.failed == 0):
        tally.failed += 1
    return tally


def run_unit_program(test):
    """One cmocka program; returns (name, tally, seconds, output)."""
    start = time.monotonic()
    environment = {**os.environ, **test["env"], "CMOCKA_MESSAGE_OUTPUT": "TAP"}
    try:
        done = subprocess.run(test["cmd"], env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=test["timeout"], cwd=test["workdir"] or ROOT, check=False)
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace")
        output += f"\nno end after {test['timeout']} s\n"
        status = -1
    tally = read_tap(output, status)
    return test["name"], tally, time.monotonic() - start, output


def unit_programs(build):
    listing = subprocess.run(["meson", "introspect", "--tests", build], capture_output=True,
                             text=True, check=True).stdout
    return [test for test in json.loads(listing) if "sluice:unit" in test["suite"]]


def run_unit(build):
    programs, total = unit_programs(build), Tally()
    print(f"unit: {len(programs)} programs of {build}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(run_unit_program, test) for test in programs]
        for job in concurrent.futures.as_completed(jobs):
            name, tally, seconds, output = job.result()
            total += tally
            print(f"  {name:<24} {tally} ({seconds:.1f} s)", flush=True)
            if tally.failed:
                print("    " + output.rstrip().replace("\n", "\n    "), flush=True)
    if not programs:
        print("  no unit tests in this build")
        total.failed += 1
    return total


def run_e2e(build):
    runner = os.path.join(ROOT, "tests", "e2e", "run")
    if not os.path.exists(runner):
        print("e2e: tests/e2e/run is missing", flush=True)
        return Tally(0, 1)
    binary = os.path.abspath(os.path.join(build, "sluice"))
    print(f"e2e: {binary}", flush=True)
    environment = {**os.environ, "SLUICE_BIN": binary, "SLUICE_CI": "1"}
    with subprocess.Popen([runner], env=environment, stdout=subprocess.PIPE, cwd=ROOT,
                          stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            print("  " + line, end="", flush=True)
    return read_pytest("".join(lines), process.returncode)


def main():
    parser = argparse.ArgumentParser(description="Run the tests of one build.")
    parser.add_argument("--build", default="build", help="build folder (build)")
    parser.add_argument("--unit-build", help="build folder of the unit tests (the same)")
    parser.add_argument("suites", nargs="*", metavar="unit|e2e")
    options = parser.parse_args()
    folders = {"unit": options.unit_build or options.build, "e2e": options.build}
    runners = {"unit": run_unit, "e2e": run_e2e}
    suites = options.suites or list(runners)
    if set(suites) - set(runners):
        parser.error("the suites are: unit, e2e")
    total = Tally()
    for suite in suites:
        tally = runners[suite](folders[suite])
        print(f"{suite}: {tally}", flush=True)
        total += tally
    print(total, flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
