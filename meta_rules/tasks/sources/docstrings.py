"""English text that needs no network: what the libraries that this package needs say about their own functions.

The docstring of every public class and function is a document, the library that it comes from its class. The files are
parsed, never imported. Words that name a library are left out, or a single word would tell the classes apart.
"""

import ast
import importlib.metadata
import importlib.util
import pathlib
import re

import numpy as np

from meta_rules.errors import UserError
from meta_rules.tasks.sources import text
from meta_rules.tasks.sources.base import Option, SourceInfo, register, whole
from meta_rules.tasks.sources.splits import SPLITS, cut_parts

#: Distribution -> the package in it.
LIBRARIES = {
    "keras": "keras",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
}
_NAMES = re.compile(
    r"\b(keras|matplotlib|mpl|plt|pyplot|numpy|np|sklearn|scikit|scipy|sp|tensorflow|tf)\b", re.IGNORECASE
)
#: Words that a docstring must have to say something.
_WORDS = 20


@register("docstrings")
class Docstrings(text.Text):
    """Documentation of five libraries as bags of words, `examples` documents a library; tenths for validation and test."""

    options = text._OPTIONS | {"examples": Option(400, whole(20), "documents a library")}

    def info(self):
        """See `Source`."""
        per_class = self.option["examples"]
        tenth = max(1, round(per_class / 10))
        counts = {"train": per_class - 2 * tenth, "validation": tenth, "test": tenth}
        splits = {split: counts[split] * len(LIBRARIES) for split in SPLITS}
        versions = ", ".join(self.version()[1:])
        origin = f"docstrings of the installed {versions} as bags of words"
        return SourceInfo(self.name, (self.option["vocabulary"],), len(LIBRARIES), splits, origin)

    def parts(self):
        """See `Source`."""
        return cut_parts(("all",))

    def version(self):
        """See `Source`."""
        return [1, *(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)]

    def texts(self, stored):
        """See `Text`."""
        wanted, texts, labels = self.option["examples"], [], []
        for number, (name, package) in enumerate(LIBRARIES.items()):
            found = documents(package)
            if len(found) < wanted:
                raise UserError(
                    f"{self.name!r}: the installed {name} has {len(found)} documents; write docstrings?examples=NUMBER."
                )
            # Spread over the whole library: neighbours in a file are often alike.
            texts += [found[i] for i in np.random.default_rng(number).permutation(len(found))[:wanted]]
            labels += [number] * wanted
        return texts, np.array(labels, np.int32), tuple(LIBRARIES)


def documents(package):
    """The docstrings of public functions and classes in an installed package, without repeats, in the order of its files.

    Args:
      package: name of the package; it is looked up, not imported.
    """
    spec = importlib.util.find_spec(package)
    found = {}
    for folder in spec.submodule_search_locations if spec else ():
        for path in sorted(pathlib.Path(folder).rglob("*.py")):
            if {"test", "tests", "testing", "_api"} & set(path.relative_to(folder).parts):
                continue
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (OSError, SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                    said = _NAMES.sub(" ", ast.get_docstring(node) or "")
                    if len(said.split()) >= _WORDS:
                        found[said] = None
    return list(found)
