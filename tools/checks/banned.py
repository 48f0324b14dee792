"""Functions that nobody may call outside base/, and words that mean "not done"."""

import re

from . import csource
from .tree import Finding

NAME = "banned"

# function -> what to use instead
FUNCTIONS = {
    "malloc": "mem_alloc", "calloc": "mem_zalloc", "realloc": "mem_realloc", "free": "mem_free",
    "reallocarray": "mem_realloc", "aligned_alloc": "pool_get", "posix_memalign": "pool_get",
    "strdup": "mem_strdup", "strndup": "mem_strdup", "asprintf": "buf_printf",
    "vasprintf": "buf_printf", "strcpy": "buf_append", "strncpy": "buf_append",
    "strcat": "buf_append", "strncat": "buf_append", "stpcpy": "buf_append",
    "sprintf": "snprintf or buf_printf", "vsprintf": "vsnprintf",
    "strtol": "the str_to_* functions", "strtoul": "the str_to_* functions",
    "strtoll": "the str_to_* functions", "strtoull": "the str_to_* functions",
    "strtod": "the str_to_* functions", "atoi": "the str_to_* functions",
    "atol": "the str_to_* functions", "atoll": "the str_to_* functions",
    "atof": "the str_to_* functions", "gets": "buf reads", "strtok": "str_split",
    "strtok_r": "str_split", "alloca": "the arena", "assert": "assert_always",
}

# (path, function) -> why it may
EXEMPT = {
    ("src/io/watchdog.c", "free"): "backtrace_symbols() allocates with malloc",
}

# Parentheses around the name change nothing.
_CALL = re.compile(r"(?<![\w.>])\(?\s*\b(" + "|".join(FUNCTIONS) + r")\b\s*\)?\s*\(")
# Spelled apart, so that this file does not find itself.
_UNDONE = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
_TEXT = (".c", ".h", ".S", ".py", ".sh", ".md", ".build", ".js", ".mjs", ".yml", ".yaml", ".txt")


def _check_calls(tree, name):
    code = csource.blank(tree.text(name))
    for match in _CALL.finditer(code):
        function = match.group(1)
        if (name, function) not in EXEMPT:
            yield Finding(name, csource.line_of(code, match.start()),
                          f"{function}() is banned outside base/; use {FUNCTIONS[function]}")


def _check_undone(tree, name):
    text = tree.text(name)
    for match in _UNDONE.finditer(text):
        yield Finding(name, csource.line_of(text, match.start()),
                      f"{match.group()}: finish it or open an issue")


def check(tree):
    findings = []
    names = [name for name in tree.c_files("src") if not name.startswith("src/base/")]
    for name in names:
        findings.extend(_check_calls(tree, name))
    for name in tree.files:
        if name.endswith(_TEXT):
            findings.extend(_check_undone(tree, name))
    return findings, f"{len(FUNCTIONS)} functions, {len(names)} files outside base/"


GOOD = {"src/io/x.c": 'int x(void) { mem_free(p); ops->free(p); return f("free(p)"); }\n'
                      "_Static_assert(1, \"\"); /* free(p) */\n",
        "src/base/mem.c": "void mem_free(void *p) { free(p); }\n"}
BAD = [
    ({"src/io/x.c": "void x(void) { free(p); }\n"}, "free() is banned"),
    ({"src/io/x.c": "#define X(p) strcpy(p, q)\n"}, "strcpy() is banned"),
    ({"src/io/x.c": "void x(void) { (free)(p); }\n"}, "free() is banned"),
    ({"src/io/x.c": "void x(void) { assert(1); }\n"}, "assert() is banned"),
    ({"src/io/x.c": "/* " + "TO" + "DO: more */\n"}, "finish it"),
]
