"""Functions that may park are marked FIBER_FN, and only such functions call them.

Text-based and cautious. A call counts by its name: a function of the same file by its own marker,
any other by the marker of its declaration, a call through a pointer (`ops->send(...)`) by the
marker of a struct member of that name or of its function type. Whoever calls one must carry the
marker itself, or be started as a fiber (passed to one of SPAWNERS).
"""

import re

from . import csource
from .tree import Finding

NAME = "fibers"

# These run the function they are given on a fiber of its own.
SPAWNERS = r"fiber_spawn|fiber_group_spawn|loop_spawn|loop_call"

# (path, function) -> why it may call a parking function without being marked
ENTRIES = {
}

_MARKED = re.compile(r"\bFIBER_FN\b([^;{}]*?)[;{]")
_MEMBER = re.compile(r"[\w\s*]*\(\s*\*\s*(?:const\s+)?(\w+)\s*\)\s*\(")
_CALL = re.compile(r"(->|\.)?\s*\b([A-Za-z_]\w*)\s*\(")
_KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "_Alignof", "alignof", "typeof"}


class Marks:
    """What is marked: functions for all to see, and names of pointers (members, parameters)."""

    def __init__(self):
        self.functions, self.pointers, self.types = set(), set(), set()


class Source:
    """One file: its code without comments and directives, its functions, its own markers."""

    def __init__(self, tree, name):
        self.name = name
        self.code = csource.blank_directives(csource.blank(tree.text(name)))
        self.functions = csource.functions(self.code)
        self.defined = {function.name for function in self.functions}
        self.marked = set()
        self.spawned = set()
        for match in re.finditer(rf"\b(?:{SPAWNERS})\s*\(([^;]*);", self.code):
            self.spawned |= set(re.findall(r"\b[A-Za-z_]\w*\b", match.group(1)))


def _declared_name(declaration):
    """The function a marked declaration names: the identifier before its parameter list."""
    for match in re.finditer(r"\b(\w+)\s*\(", declaration):
        if match.group(1) not in ("__attribute__",):
            return match.group(1)
    return None


def _collect(source, marks):
    for match in _MARKED.finditer(source.code):
        before = re.split(r"[;{}]", source.code[: match.start()])[-1]
        declaration = match.group(1)
        member = _MEMBER.match(declaration)
        name = member.group(1) if member else _declared_name(declaration)
        if name is None:
            continue
        if member:
            marks.pointers.add(name)
        elif "typedef" in before:
            marks.types.add(name)
        else:
            source.marked.add(name)
            if "static" not in before + declaration or source.name.endswith(".h"):
                marks.functions.add(name)


def _collect_typed_pointers(source, marks):
    """`handler_fn *handle` is a marked pointer when handler_fn is a marked function type."""
    for name in marks.types:
        for match in re.finditer(rf"\b{name}\s*\*\s*(?:const\s+)?(\w+)", source.code):
            marks.pointers.add(match.group(1))


def _parks(source, marks, through_member, callee):
    if callee in _KEYWORDS:
        return False
    if through_member:
        return callee in marks.pointers
    if callee in source.defined or callee in source.marked:
        return callee in source.marked or callee in marks.functions
    return callee in marks.functions


def _check_function(source, function, marks):
    for match in _CALL.finditer(function.body):
        member, callee = match.groups()
        if _parks(source, marks, member is not None, callee):
            line = function.body_line + function.body.count("\n", 0, match.start(2))
            yield Finding(source.name, line, f"{function.name} calls {callee}, which may park, "
                                             "but is not marked FIBER_FN")


def check(tree):
    marks = Marks()
    sources = [Source(tree, name) for name in tree.c_files("src")]
    for source in sources:
        _collect(source, marks)
    for source in sources:
        _collect_typed_pointers(source, marks)
    findings, count = [], 0
    spawned_anywhere = set().union(*(source.spawned for source in sources))
    for source in sources:
        for function in source.functions:
            count += 1
            static = re.search(r"\bstatic\b", function.header)
            roots = source.spawned if static else spawned_anywhere
            if function.name in source.marked | marks.functions | roots:
                continue
            if (source.name, function.name) not in ENTRIES:
                findings.extend(_check_function(source, function, marks))
    return findings, (f"{len(marks.functions)} parking functions, "
                      f"{len(marks.pointers)} parking pointers, {count} functions read")


_FIBER_H = "#define FIBER_FN\nFIBER_FN int fiber_park(int d);\nvoid fiber_spawn(void (*f)(void *));\n"
GOOD = {
    "src/io/fiber.h": _FIBER_H,
    "src/io/x.h": "struct ops {\n    FIBER_FN int (*send)(int a);\n    int (*name)(int a);\n};\n",
    "src/io/x.c": "static FIBER_FN int wait_here(void)\n{\n    return fiber_park(1);\n}\n"
                  "static void root(void *a)\n{\n    wait_here();\n}\n"
                  "void start(struct ops *ops)\n{\n    fiber_spawn(root);\n    ops->name(1);\n"
                  "    /* fiber_park(1) */\n}\n",
    "src/io/z.h": "FIBER_FN int call(int (*fn)(void *arg), void *arg);\n",
    "src/io/z.c": "void plain(int (*fn)(void *)) { fn(0); }\n",
    "src/io/y.c": "static int wait_here(void) { return 0; }\nint other(void) { return wait_here(); }\n",
}
BAD = [
    ({"src/io/fiber.h": _FIBER_H, "src/io/x.c": "int x(void)\n{\n    return fiber_park(1);\n}\n"},
     "x calls fiber_park"),
    ({"src/io/x.c": "static FIBER_FN int deep(void) { return 0; }\nint x(void) { return deep(); }\n"},
     "x calls deep"),
    ({"src/io/x.h": "struct ops {\n    FIBER_FN int (*send)(int a);\n};\n",
      "src/io/x.c": "int x(struct ops *o) { return o->send(1); }\n"}, "x calls send"),
    ({"src/io/x.h": "typedef FIBER_FN int handler(int a);\nstruct route { handler *serve; };\n",
      "src/io/x.c": "int x(struct route *r) { return r->serve(1); }\n"}, "x calls serve"),
]
