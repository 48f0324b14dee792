"""The source tree as the checks see it: which files there are, and what is in them."""

import functools
import os
import subprocess


class Finding:
    """One thing that is wrong, at one place."""

    def __init__(self, path, line, text):
        self.path, self.line, self.text = path, line, text

    def __str__(self):
        return f"{self.path}:{self.line}: {self.text}"


class Tree:
    """Files are named by their path relative to the root, with forward slashes."""

    def __init__(self, root):
        self.root = os.path.abspath(root)

    @functools.cached_property
    def files(self):
        """All files that are, or could be, in the repository: never build output."""
        listed = subprocess.run(
            ["git", "-C", self.root, "ls-files", "-co", "--exclude-standard", "-z"],
            capture_output=True, text=True, check=False)
        if listed.returncode == 0 and os.path.exists(os.path.join(self.root, ".git")):
            names = [name for name in listed.stdout.split("\0") if name]
            return sorted(name for name in set(names) if os.path.isfile(self.path(name)))
        return sorted(self._walk())

    def _walk(self):
        for folder, folders, names in os.walk(self.root):
            folders[:] = [f for f in folders if f not in (".git", "node_modules", "__pycache__")
                          and not f.startswith("build")]
            for name in names:
                yield os.path.relpath(os.path.join(folder, name), self.root)

    def path(self, name):
        return os.path.join(self.root, name)

    @functools.lru_cache(maxsize=None)
    def text(self, name):
        with open(self.path(name), encoding="utf-8", errors="replace") as handle:
            return handle.read()

    def c_files(self, *folders):
        """C sources and headers under the given top folders."""
        return [name for name in self.files
                if name.endswith((".c", ".h")) and name.split("/", 1)[0] in folders]
