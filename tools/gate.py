#!/usr/bin/env python3
"""The slow gates: tools/gate.py [--fuzz-seconds N] [step ...]

check-fast  tools/check.py and its self test
warnings    strict builds with gcc and with clang (ucontext fibers), any warning is an error
tidy        clang-tidy over src/
asan        unit and end-to-end tests with AddressSanitizer and UndefinedBehaviorSanitizer
tsan        the same with ThreadSanitizer
fuzz        every libFuzzer harness for N seconds (30), starting from its corpus

Each step builds in a folder of its own under build/. Prints progress, a table at the end and, last,
`N passed, N failed`: the sum of all cases.
"""

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import time

from test import ROOT, Tally

# Sanitizers need the address layout they were built for, so randomisation is switched off.
NO_RANDOM = ["setarch", os.uname().machine, "-R"]
COMMON = ["-Dsplit_debug=false"]
STRICT = [*COMMON, "-Dwerror=true", "-Dtests=enabled"]
CLANG_BUILD = [*STRICT, "-Dfiber=ucontext"]
SIGN_OF_LIFE_SECONDS = 15


def say(text):
    print(text, flush=True)


def run(command, environment=None, quiet=False):
    """Runs in the root of the tree; returns (status, output). The output is shown as it comes, or,
    when quiet, one line of it now and then as a sign of life."""
    lines, shown = [], time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(environment or {})},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace") as process:
        for line in process.stdout:
            lines.append(line)
            if not quiet or time.monotonic() - shown > SIGN_OF_LIFE_SECONDS:
                shown = time.monotonic()
                print("  " + line, end="", flush=True)
    return process.returncode, "".join(lines)


def closing_line(status, output):
    """The tally that our own tools print last."""
    found = re.findall(r"^(\d+) passed, (\d+) failed$", output, re.MULTILINE)
    tally = Tally(*map(int, found[-1])) if found else Tally(0, 1)
    if status != 0 and tally.failed == 0:
        tally.failed += 1
    return tally


def build(name, arguments, compiler="gcc", targets=()):
    """Configures (once) and builds build/<name>; True when that went well."""
    folder = f"build/{name}"
    say(f"building {folder} with {compiler}")
    status, output = 0, ""
    if os.path.exists(os.path.join(ROOT, folder, "build.ninja")):
        status, output = run(["meson", "configure", folder, *arguments], quiet=True)
    else:
        shutil.rmtree(os.path.join(ROOT, folder), ignore_errors=True)
        status, output = run(["meson", "setup", folder, *arguments], {"CC": compiler}, quiet=True)
    if status == 0:
        status, output = run(["ninja", "-k", "0", "-C", folder, *targets], quiet=True)
    if status != 0:
        faults = re.sub(r"^\[\d+/\d+\] .*\n", "", output, flags=re.MULTILINE)
        starts = [at for at in (faults.find("FAILED: "), faults.find("ERROR: ")) if at >= 0]
        faults = faults[min(starts, default=0):]
        say("  " + faults[-20000:].replace("\n", "\n  "))
    return status == 0


def check_fast(_options):
    total = Tally()
    for arguments in (["--self-test"], []):
        total += closing_line(*run(["tools/check.py", *arguments]))
    return total


def warnings(_options):
    """The clang build also shows that fibers work without the assembly switch."""
    total = Tally()
    for name, arguments in (("gcc", STRICT), ("clang", CLANG_BUILD)):
        total += Tally(1, 0) if build(name, arguments, name) else Tally(0, 1)
    if total.failed == 0:
        total += closing_line(*run(["tools/test.py", "--build", "build/clang", "unit"]))
    return total


def tidy(_options):
    """The compilation database comes from the clang build, whose flags clang-tidy knows."""
    if not build("clang", CLANG_BUILD, "clang", ["version.h"]):
        return Tally(0, 1)
    status, output = run(["run-clang-tidy", "-quiet", "-p", "build/clang",
                          "-j", str(os.cpu_count()), "^.*/src/.*\\.c$"], quiet=True)
    output = re.sub(r"\x1b\[[\d;]*m", "", output).replace(ROOT + "/", "")
    findings = set(re.findall(r"^(\S+:\d+:\d+: (?:warning|error): .*)$", output, re.MULTILINE))
    for finding in sorted(re.sub(r"^(?:build/clang/)?(?:\.\./)*", "", f) for f in findings):
        say("  " + finding)
    say(f"clang-tidy: {len(findings)} findings")
    return Tally(1, 0) if status == 0 else Tally(0, 1)


def sanitizer(name, value, variables):
    def step(_options):
        folder = f"build/{name}"
        reports = os.path.join(ROOT, folder, "reports")
        if not build(name, [*COMMON, f"-Db_sanitize={value}", "-Doptimization=1",
                            "-Dtests=enabled"]):
            return Tally(0, 1)
        shutil.rmtree(reports, ignore_errors=True)
        os.makedirs(reports)
        environment = {key: f"{text}:log_path={reports}/{key.split('_')[0].lower()}"
                       for key, text in variables.items()}
        environment["SLUICE_SANITIZER"] = name
        total = closing_line(*run([*NO_RANDOM, "tools/test.py", "--build", folder, "unit", "e2e"],
                                  environment))
        for path in sorted(glob.glob(reports + "/*")):
            with open(path, encoding="utf-8", errors="replace") as handle:
                say(f"report {os.path.relpath(path, ROOT)}:\n{handle.read(6000)}")
            total += Tally(0, 1)
        return total
    return step


def fuzz_one(harness, seconds):
    name = os.path.basename(harness).removeprefix("fuzz_")
    found = os.path.join(ROOT, "build/fuzz/corpus", name)
    seeds = os.path.join(ROOT, "tests/fuzz/corpus", name)
    os.makedirs(found, exist_ok=True)
    command = [*NO_RANDOM, harness, f"-max_total_time={seconds}", "-timeout=10",
               "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix=build/fuzz/{name}-",
               found, *([seeds] if os.path.isdir(seeds) else [])]
    status, output = run(command, {"ASAN_OPTIONS": "detect_stack_use_after_return=0"}, quiet=True)
    runs = re.search(r"number_of_executed_units: (\d+)", output)
    say(f"  {name}: {runs.group(1) if runs else '?'} inputs in {seconds} s, "
        f"{'clean' if status == 0 else 'FINDING'}")
    if status != 0:
        say("    " + output[-6000:].replace("\n", "\n    "))
    return status == 0


def fuzz(options):
    if not build("fuzz", [*COMMON, "-Dfuzz=true", "-Db_sanitize=address,undefined",
                          "-Db_lundef=false", "-Doptimization=1", "-Dtests=disabled"],
                 "clang", ["fuzzers"]):
        return Tally(0, 1)
    harnesses = [path for path in sorted(glob.glob(os.path.join(ROOT, "build/fuzz/tests/fuzz/fuzz_*")))
                 if os.path.isfile(path) and os.access(path, os.X_OK)]
    total = Tally() if harnesses else Tally(0, 1)
    for harness in harnesses:
        total += Tally(1, 0) if fuzz_one(harness, options.fuzz_seconds) else Tally(0, 1)
    return total


STEPS = {
    "check-fast": check_fast,
    "warnings": warnings,
    "tidy": tidy,
    "asan": sanitizer("asan", "address,undefined", {
        "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}),
    "tsan": sanitizer("tsan", "thread", {
        "TSAN_OPTIONS": "second_deadlock_stack=1:exitcode=66"}),
    "fuzz": fuzz,
}


def main():
    parser = argparse.ArgumentParser(description="The slow gates.")
    parser.add_argument("--fuzz-seconds", type=int, default=30, help="for each harness (30)")
    parser.add_argument("steps", nargs="*", metavar="step", help="of: " + ", ".join(STEPS))
    options = parser.parse_args()
    unknown = set(options.steps) - set(STEPS)
    if unknown:
        parser.error("no such step: " + ", ".join(sorted(unknown)))
    total, table = Tally(), []
    for name in options.steps or list(STEPS):
        say(f"== {name} ==")
        start = time.monotonic()
        tally = STEPS[name](options)
        table.append(f"{name:<12} {str(tally):<24} {time.monotonic() - start:6.0f} s")
        total += tally
    say("== all ==\n" + "\n".join(table))
    say(str(total))
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
