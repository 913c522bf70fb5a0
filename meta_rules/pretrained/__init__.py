"""Meta-trained rules that come with the package: plain arrays and JSON, each with a card. Nothing is imported to list them.

A folder `NAME-VERSION` holds one rule as `meta_rules.save_rule` writes it; a version never changes once it has shipped. The
card is in `rule.json` and, for reading, in `CARD.md`. Names for `--rule` and `RuleLearner`:

| name                | rule                                   |
|---------------------|----------------------------------------|
| `pretrained`        | the newest of `DEFAULT`                |
| `pretrained:NAME`   | the newest of that name                |
| `pretrained:NAME-2` | that version, whatever else is shipped |
"""

import json
import os
import re

from meta_rules.errors import UserError

#: What `pretrained` alone means: the family of rules whose newest gives the best features.
DEFAULT = "default"
PREFIX = "pretrained"
_FOLDER = re.compile(r"^(?P<name>[a-z][a-z0-9_]*)-(?P<version>[0-9]+)$")


def root():
    """The folder of the shipped rules."""
    return os.path.dirname(os.path.abspath(__file__))


def versions():
    """Versions of every shipped rule: dict of name -> sorted numbers."""
    found = {}
    for folder in os.listdir(root()):
        match = _FOLDER.match(folder)
        if match and os.path.isfile(os.path.join(root(), folder, "rule.npz")):
            found.setdefault(match["name"], []).append(int(match["version"]))
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def shipped_rules():
    """Every shipped rule: dict of its full name (`pretrained:default-1`) -> its card, a dict."""
    cards = {}
    for name, numbers in versions().items():
        for version in numbers:
            with open(os.path.join(root(), f"{name}-{version}", "rule.json"), encoding="utf-8") as file:
                cards[f"{PREFIX}:{name}-{version}"] = json.load(file)["card"]
    return cards


def check_folder(folder):
    """Refuses what cannot be the name of a shipped rule's folder.

    Raises:
      UserError: not `NAME-VERSION`.
    """
    if not _FOLDER.match(folder):
        raise UserError(f"A shipped rule lies in a folder NAME-VERSION of a-z, 0-9 and _, not {folder!r}.")


def is_shipped_name(name):
    """Whether a rule's name is one of this module's: `pretrained`, or `pretrained:` and more."""
    return name == PREFIX or name.startswith(PREFIX + ":")


def path(name):
    """The folder of a shipped rule.

    Raises:
      UserError: no rule of that name is shipped.
    """
    shipped = versions()
    wanted = name.partition(":")[2] or DEFAULT
    match = _FOLDER.match(wanted)
    if wanted in shipped:
        return os.path.join(root(), f"{wanted}-{shipped[wanted][-1]}")
    if match and int(match["version"]) in shipped.get(match["name"], ()):
        return os.path.join(root(), wanted)
    known = [f"{PREFIX}:{n}-{v}" for n, vs in shipped.items() for v in vs]
    raise UserError(f"No rule {name!r} is shipped; there are {', '.join(known) or 'none'}.")
