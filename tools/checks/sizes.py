"""Size caps: length of functions and files, cyclomatic complexity; the figures are printed.

Counted as lizard counts (1 + branches, cases and short-circuit operators); lizard and pmccabe
themselves lose their way in macros and attributes, and a function they miss escapes the caps.
"""

import re
import statistics

from . import csource
from .tree import Finding

NAME = "sizes"

FILE_LINES = 800
FUNCTION_LINES = 100
COMPLEXITY = 15
MEDIAN_LINES = 15
P90_LINES = 50

# Files that are pure tables, each with the reason; they are exempt from the length of a file.
TABLES = {
    "src/base/metric_table.h": "one row for each metric",
    "src/app/option_table.h": "one row for each option",
}


_BRANCH = re.compile(r"\b(?:if|for|while|case|list_for\w*)\b|&&|\|\||\?")


def measure(tree, names):
    """(path, line, function, lines, complexity) of every function."""
    rows = []
    for name in names:
        code = csource.blank_directives(csource.blank(tree.text(name)))
        for function in csource.functions(code):
            lines = function.body_line - function.line + function.body.count("\n") + 1
            complexity = 1 + len(_BRANCH.findall(function.body))
            rows.append((name, function.line, function.name, lines, complexity))
    return rows


def _check_files(tree, names):
    for name in names:
        lines = tree.text(name).count("\n")
        if lines > FILE_LINES and name not in TABLES:
            yield Finding(name, FILE_LINES, f"{lines} lines; a file has at most {FILE_LINES}")


def _check_functions(rows):
    for path, line, function, lines, complexity in rows:
        if lines > FUNCTION_LINES:
            yield Finding(path, line, f"{function}: {lines} lines; the cap is {FUNCTION_LINES}")
        if complexity >= COMPLEXITY:
            yield Finding(path, line, f"{function}: complexity {complexity}; "
                                      f"must stay under {COMPLEXITY}")


def _check_distribution(lengths):
    """The middle of the distribution; a handful of functions says nothing yet."""
    if len(lengths) < 50:
        return
    median, p90 = statistics.median(lengths), statistics.quantiles(lengths, n=10)[8]
    if median >= MEDIAN_LINES:
        yield Finding("src", 0, f"median function length {median}; must stay under {MEDIAN_LINES}")
    if p90 >= P90_LINES:
        yield Finding("src", 0, f"p90 of function lengths {p90}; must stay under {P90_LINES}")


def _figures(tree, names, rows):
    if not rows:
        return "no functions"
    lengths = [row[3] for row in rows]
    p90 = statistics.quantiles(lengths, n=10)[8] if len(lengths) > 1 else lengths[0]
    longest = max(tree.text(name).count("\n") for name in names)
    return (f"{len(rows)} functions: lines median {statistics.median(lengths):g}, p90 {p90:.0f}, "
            f"max {max(lengths)}; complexity max {max(row[4] for row in rows)}; "
            f"longest file {longest}")


def check(tree):
    names = tree.c_files("src", "tests", "bench")
    rows = measure(tree, names)
    source = [row for row in rows if row[0].startswith("src/")]
    findings = [*_check_files(tree, names), *_check_functions(rows),
                *_check_distribution([row[3] for row in source])]
    return findings, _figures(tree, names, source)


_LONG = "int x(void)\n{\n" + "    x();\n" * 101 + "    return 0;\n}\n"
_BRANCHY = "int x(int a)\n{\n" + "    if (a) x(1);\n" * 15 + "    return 0;\n}\n"
_MIDDLING = "".join(f"int x{i}(void) {{\n" + "    x();\n" * 20 + "}\n" for i in range(60))

GOOD = {"src/base/x.c": "int x(void)\n{\n    return 0;\n}\n"}
BAD = [
    ({"src/base/x.c": _LONG}, "the cap is 100"),
    ({"src/base/x.c": _BRANCHY}, "complexity 16"),
    ({"src/base/x.c": "\n" * 801}, "801 lines"),
    ({"src/base/x.c": _MIDDLING}, "median function length"),
]
