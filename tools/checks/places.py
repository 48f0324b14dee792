"""No file names a package registry's host, nor a path of the machine it was written on."""

import re

from . import csource
from .tree import Finding

NAME = "places"

# Parts of registry host names; a host is any dotted name that has one of them as a label's part.
_REGISTRIES = ("pypi", "pythonhosted", "npmjs", "yarnpkg", "debian", "ubuntu", "crates",
               "rubygems", "docker", "ghcr", "quay", "gcr", "maven", "golang")
_HOST = re.compile(r"\b(?:[\w-]+\.)*[\w-]*(?:" + "|".join(_REGISTRIES)
                   + r")[\w-]*(?:\.[\w-]+)*\.(?:org|com|io|net|dev|cloud)\b")
_MACHINE = re.compile(r"(?<![\w./-])/(?:work|root|home)/\w[\w./-]*")

# (path, text) -> why it may stand there
EXEMPT = {
}


def _binary(text):
    return "\0" in text[:4096]


def _check_file(tree, name):
    text = tree.text(name)
    if _binary(text):
        return
    patterns = [(_HOST, "host of a package registry"), (_MACHINE, "path of a machine"),
                (re.compile(re.escape(tree.root) + r"\b"), "path of this tree")]
    for pattern, what in patterns:
        for match in pattern.finditer(text):
            if (name, match.group()) not in EXEMPT:
                yield Finding(name, csource.line_of(text, match.start()),
                              f"{match.group()}: {what}")


def check(tree):
    findings = []
    for name in tree.files:
        findings.extend(_check_file(tree, name))
    return findings, f"{len(tree.files)} files"


GOOD = {"README.md": "https://www.apache.org/licenses/ and debian/control, /v1/workers\n"}
BAD = [
    ({"x.json": '"resolved": "https://registry.' + "npmjs" + '.org/openai"\n'}, "registry"),
    ({"x.sh": "deb http://deb." + "debian" + ".org/debian\n"}, "registry"),
    ({"x.md": "see /" + "root/notes\n"}, "path of a machine"),
]
