"""Just enough C for text-based checks: blanked comments and strings, and where functions are."""

import re
from collections import namedtuple

Function = namedtuple("Function", "name header line body body_line")

_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE | re.DOTALL)
_NOT_A_NAME = {"__attribute__", "if", "for", "while", "switch", "return", "sizeof", "_Alignas",
               "_Static_assert", "alignas", "typeof", "__typeof__"}


def _spaces(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def blank(text):
    """The text without comments and the insides of literals; every line and column stays put."""
    return _TOKEN.sub(_spaces, text)


def blank_directives(text):
    """Blanks preprocessor lines (macro bodies too) of a text that `blank` has seen."""
    return _DIRECTIVE.sub(_spaces, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def _paren_groups(header):
    """(identifier before it, start) of each outermost parenthesis group."""
    groups, depth = [], 0
    for match in re.finditer(r"[()]", header):
        if match.group() == "(":
            if depth == 0:
                name = re.search(r"(\w+)\s*$", header[: match.start()])
                groups.append((name.group(1) if name else "", match.start()))
            depth += 1
        else:
            depth -= 1
    return groups


def _function_name(header):
    if re.search(r"=\s*$", header) or re.search(r"\b(typedef)\b", header):
        return None
    names = [name for name, _ in _paren_groups(header) if name and name not in _NOT_A_NAME]
    return names[-1] if names else None


def functions(code):
    """Function definitions of a text that `blank` and `blank_directives` have seen."""
    found, depth, start, opened = [], 0, 0, 0
    for match in re.finditer(r"[{};]", code):
        char, at = match.group(), match.start()
        if char == "{":
            if depth == 0:
                opened = at
            depth += 1
        elif char == "}":
            depth = max(0, depth - 1)
            if depth == 0:
                header = code[start:opened]
                name = _function_name(header)
                if name:
                    first = start + len(header) - len(header.lstrip())
                    found.append(Function(name, header.strip(), line_of(code, first),
                                          code[opened:at + 1], line_of(code, opened)))
                start = at + 1
        elif depth == 0:
            start = at + 1
    return found
