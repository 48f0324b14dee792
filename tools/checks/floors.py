"""Includes point down only (docs/architecture.md): folders, third-party headers, gateway ranks."""

import os
import re

from .tree import Finding

NAME = "floors"

# Floor of each folder under src/. Folders on one floor are siblings and do not see each other.
FLOORS = {
    "base": 0,
    "io": 1,
    "proto": 2,
    "text": 3, "fleet": 3, "store": 3, "mcp": 3, "observe": 3, "auth": 3,
    "gateway": 4,
    "lab": 5,
    "app": 6,
}

# Third-party headers: pattern -> the folders that may include them.
THIRD_PARTY = [
    (r"xxhash\.h|utf8proc\.h", {"base"}),
    (r"uv\.h|openssl/.*", {"io"}),
    (r"llhttp\.h|nghttp2/.*|yyjson\.h|protobuf-c/.*|curl/.*|wslay/.*|yaml\.h", {"proto"}),
    (r"pcre2\.h", {"text"}),
    (r"sqlite3\.h|libpq-fe\.h|hiredis/.*", {"store"}),
    (r"cjose/.*|jwt\.h", {"auth"}),
    # The sanitizers and valgrind are told of memory pools and of fiber switches.
    (r"sanitizer/.*|valgrind/.*", {"base", "io"}),
]

SYSTEM = re.compile(
    r"(assert|ctype|errno|fenv|float|inttypes|limits|locale|math|setjmp|signal|stdalign|stdarg"
    r"|stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|strings|time|wchar"
    r"|dirent|dlfcn|endian|execinfo|fcntl|fnmatch|getopt|glob|grp|ifaddrs|malloc|netdb"
    r"|poll|pthread|pwd|sched|semaphore|spawn|sysexits|syslog|termios|threads|ucontext|unistd"
    r"|[a-z]mmintrin|arm_neon|arm_acle)\.h"
    r"|(sys|net|netinet|arpa|linux|asm|bits)/[\w/.-]+\.h")

# Inside gateway/: a file (or folder) of a lower rank never reaches one of a higher rank, not even
# through other headers; those of one rank are siblings. What is not named here has no rank.
GATEWAY_RANKS = {"backend": 1, "dispatch": 2, "inference": 3, "admin": 3, "responses": 3,
                 "conversations": 3}

GENERATED = {"version.h"}

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def includes(tree, name):
    """(line, header, is it written in angle brackets) of each include."""
    text = tree.text(name)
    for match in _INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match.group(2), match.group(1) == "<"


def _gateway_unit(name):
    parts = name.split("/")
    if parts[:2] != ["src", "gateway"]:
        return None
    unit = parts[2] if len(parts) > 3 else os.path.splitext(parts[2])[0]
    return unit if unit in GATEWAY_RANKS else None


def _check_own(name, folder, line, header, tree):
    if header in GENERATED:
        return None
    target = header.split("/", 1)[0]
    if "src/" + header not in tree.files:
        return Finding(name, line, f'"{header}" is not a header under src/ '
                                   "(includes are written relative to src/)")
    if target not in FLOORS:
        return Finding(name, line, f"folder {target} has no floor in tools/checks/floors.py")
    if target == folder or FLOORS[target] < FLOORS[folder]:
        return None
    how = "a sibling" if FLOORS[target] == FLOORS[folder] else "upward"
    return Finding(name, line, f'{folder} (floor {FLOORS[folder]}) includes "{header}" '
                               f"(floor {FLOORS[target]}): {how}")


def _check_foreign(name, folder, line, header):
    if SYSTEM.fullmatch(header):
        return None
    for pattern, folders in THIRD_PARTY:
        if re.fullmatch(pattern, header):
            if folder in folders:
                return None
            return Finding(name, line, f"<{header}> belongs to {', '.join(sorted(folders))} only")
    return Finding(name, line, f"<{header}> is in no table of tools/checks/floors.py")


def _reached(tree, name):
    """Headers that a file sees, through other headers as well."""
    seen, todo = set(), [name]
    while todo:
        for _, header, angle in includes(tree, todo.pop()):
            path = "src/" + header
            if not angle and path in tree.files and path not in seen:
                seen.add(path)
                todo.append(path)
    return seen


def _check_gateway_rank(tree, name):
    unit = _gateway_unit(name)
    if unit is None:
        return
    for header in sorted(_reached(tree, name)):
        other = _gateway_unit(header)
        if other and other != unit and GATEWAY_RANKS[other] >= GATEWAY_RANKS[unit]:
            yield Finding(name, 1, f"gateway: {unit} reaches {header}, "
                                   "which is above or beside it")


def check(tree):
    findings = []
    for name in tree.c_files("src"):
        parts = name.split("/")
        folder = parts[1]
        if len(parts) < 3 or folder not in FLOORS:
            findings.append(Finding(name, 1, "this folder has no floor"))
            continue
        for line, header, angle in includes(tree, name):
            found = (_check_foreign(name, folder, line, header) if angle
                     else _check_own(name, folder, line, header, tree))
            if found:
                findings.append(found)
        findings.extend(_check_gateway_rank(tree, name))
    return findings, f"{len(tree.c_files('src'))} files"


GOOD = {"src/base/str.h": "#pragma once\n#include <stddef.h>\n",
        "src/io/loop.c": '#include <uv.h>\n#include "base/str.h"\n'}
BAD = [
    ({"src/base/x.c": '#include "io/loop.h"\n', "src/io/loop.h": ""}, "upward"),
    ({"src/fleet/x.c": '#include "observe/m.h"\n', "src/observe/m.h": ""}, "a sibling"),
    ({"src/gateway/x.c": "#include <yyjson.h>\n"}, "belongs to proto only"),
    ({"src/proto/x.c": "#include <glib.h>\n"}, "in no table"),
    ({"src/base/x.c": '#include "str.h"\n', "src/base/str.h": ""}, "relative to src"),
    ({"src/gateway/backend/x.c": '#include "gateway/y.h"\n',
      "src/gateway/y.h": '#include "gateway/dispatch.h"\n',
      "src/gateway/dispatch.h": ""}, "above or beside"),
]
