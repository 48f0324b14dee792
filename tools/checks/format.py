"""The layout of C code is what clang-format makes of it (`make format` rewrites)."""

import re
import subprocess

from .tree import Finding

NAME = "format"

REFERENCE = 14  # other major versions lay out a few things differently
FOLDERS = ("src", "tests", "bench")


def version():
    text = subprocess.run(["clang-format", "--version"], capture_output=True, text=True,
                          check=True).stdout
    return int(re.search(r"version (\d+)", text).group(1))


def check(tree):
    names = tree.c_files(*FOLDERS)
    note = f"{len(names)} files, clang-format {version()}"
    if version() != REFERENCE:
        return [], note + f": not compared (the reference is {REFERENCE})"
    if not names:
        return [], note
    result = subprocess.run(["clang-format", "--dry-run", "--ferror-limit=1", *names],
                            cwd=tree.root, capture_output=True, text=True, check=False)
    findings = []
    for match in re.finditer(r"^([^\s:]+):(\d+):\d+: \w+: (code should be clang-formatted)",
                             result.stderr, re.MULTILINE):
        findings.append(Finding(match.group(1), int(match.group(2)), "run `make format`"))
    if result.returncode and not findings:
        findings.append(Finding("clang-format", 0, result.stderr.strip()[:400]))
    return findings, note


_STYLE = {".clang-format": "BasedOnStyle: LLVM\nIndentWidth: 4\n"}
GOOD = {**_STYLE, "src/base/x.c": "int x(void) {\n    return 0 + 0 + 0;\n}\n"}
BAD = [({**_STYLE, "src/base/x.c": "int x ( void ) { return 0 ; }\n"}, "make format")]
GOOD["src/base/x.c"] = "int x;\n"
