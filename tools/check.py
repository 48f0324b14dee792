#!/usr/bin/env python3
"""The fast checks of the tree: tools/check.py [--self-test] [check ...]

Prints one line a check with its figures, the findings below it, and ends with
`N passed, N failed`. Each check carries samples that it must find and one that it must let pass;
--self-test runs those.
"""

import argparse
import os
import sys
import tempfile

from checks import banned, fibers, floors, format as layout, listed, places, sizes
from checks.tree import Tree

CHECKS = [floors, listed, sizes, banned, fibers, layout, places]
MOST_SHOWN = 40


def run_check(module, tree):
    findings, note = module.check(tree)
    print(f"{'FAIL' if findings else 'ok  '} {module.NAME:<8} {note}", flush=True)
    for finding in findings[:MOST_SHOWN]:
        print(f"     {finding}")
    if len(findings) > MOST_SHOWN:
        print(f"     ... and {len(findings) - MOST_SHOWN} more")
    return not findings


def findings_in(module, sample):
    with tempfile.TemporaryDirectory() as root:
        for name, text in sample.items():
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as handle:
                handle.write(text)
        return [str(finding) for finding in module.check(Tree(root))[0]]


def self_test(module):
    wrong = [f"false alarm: {finding}" for finding in findings_in(module, module.GOOD)]
    for sample, expected in module.BAD:
        found = findings_in(module, sample)
        if not any(expected in finding for finding in found):
            wrong.append(f"bad sample not found: {expected!r} (found: {found})")
    print(f"{'FAIL' if wrong else 'ok  '} {module.NAME:<8} self test, {len(module.BAD)} bad samples",
          flush=True)
    for line in wrong:
        print(f"     {line}")
    return not wrong


def main():
    parser = argparse.ArgumentParser(description="Fast checks of the tree.")
    parser.add_argument("--self-test", action="store_true", help="check the checks")
    parser.add_argument("names", nargs="*", metavar="check",
                        help="of: " + ", ".join(module.NAME for module in CHECKS))
    options = parser.parse_args()
    unknown = set(options.names) - {module.NAME for module in CHECKS}
    if unknown:
        parser.error("no such check: " + ", ".join(sorted(unknown)))
    chosen = [m for m in CHECKS if not options.names or m.NAME in options.names]
    tree = Tree(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    results = [self_test(m) if options.self_test else run_check(m, tree) for m in chosen]
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
