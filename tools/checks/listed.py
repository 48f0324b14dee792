"""Every C file is built: sources, unit tests and fuzzers stand in their folder's meson.build."""

import os
import re

from .tree import Finding

NAME = "listed"


def _meson_of(tree, name):
    """The nearest meson.build at or above a file's folder, and the file's path from there."""
    folder = os.path.dirname(name)
    while folder not in ("", "src", "tests"):
        candidate = f"{folder}/meson.build"
        if candidate in tree.files:
            return candidate, os.path.relpath(name, folder)
        folder = os.path.dirname(folder)
    return None, name


def _check_source(tree, name):
    if name == "src/app/main.c":
        return
    build, relative = _meson_of(tree, name)
    if build is None:
        yield Finding(name, 1, "no meson.build lists this file")
    elif not re.search(rf"'{re.escape(relative)}'", tree.text(build)):
        yield Finding(name, 1, f"not listed in {build}")


def _check_named(tree, name, short):
    """Tests and fuzzers are listed by their short name."""
    build = os.path.dirname(name) + "/meson.build"
    if build not in tree.files or not re.search(rf"'{re.escape(short)}'", tree.text(build)):
        yield Finding(name, 1, f"not listed in {build}")


def check(tree):
    findings, count = [], 0
    for name in tree.files:
        if name.startswith("src/") and name.endswith(".c"):
            findings.extend(_check_source(tree, name))
        elif match := re.fullmatch(r"tests/(?:unit/(.*)_test|fuzz/fuzz_(.*))\.c", name):
            findings.extend(_check_named(tree, name, match.group(1) or match.group(2)))
        else:
            continue
        count += 1
    return findings, f"{count} files"


GOOD = {"src/base/meson.build": "base_sources = files('x.c', 'sub/y.c')\n", "src/base/x.c": "",
        "src/base/sub/y.c": "", "tests/unit/meson.build": "unit_tests = ['x']\n",
        "tests/unit/x_test.c": ""}
BAD = [
    ({"src/base/meson.build": "base_sources = files('x.c')\n", "src/base/y.c": ""}, "not listed"),
    ({"src/base/y.c": ""}, "no meson.build"),
    ({"tests/unit/meson.build": "unit_tests = []\n", "tests/unit/x_test.c": ""}, "not listed"),
]
