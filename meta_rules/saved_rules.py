"""A rule on disk: one safe file that holds its name, its configuration, its meta-parameters and its card.

`rule.npz` is a plain NumPy archive (no pickle): every meta-parameter under its name, and the rest as JSON in the array
`description`. `rule.json` beside it repeats the description for people. Any framework can read both.
"""

import hashlib
import inspect
import io
import json
import os
import zipfile

import numpy as np

from meta_rules import pretrained
from meta_rules.errors import UserError
from meta_rules.rules import base as rules

FORMAT = 1
FILE = "rule.npz"
_DESCRIPTION = "description"


def write_atomically(path, content):
    """Writes bytes so that the file is either as it was or complete."""
    partial = f"{path}.partial-{os.getpid()}"
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def save_rule(path, rule, card=None, theta=None):
    """Saves a rule in the folder `path`.

    Args:
      path: folder, made if need be.
      rule: an `UpdateRule`.
      card: JSON-ready dict that says where the rule comes from.
      theta: dict of name -> array to save instead of the rule's own meta-parameters (an average over time, say).
    """
    content, text = _archive(rule, card, theta)
    os.makedirs(path, exist_ok=True)
    write_atomically(os.path.join(path, FILE), content)
    write_atomically(os.path.join(path, "rule.json"), (text + "\n").encode())


def as_npz(rule, card=None):
    """A rule as the bytes of one npz file: arrays by name, and `description`, JSON text as uint8.

    Besides what `save_rule` writes the description has `about`: what the rule computes, in words and formulas.
    """
    return _archive(rule, card, None, about=inspect.cleandoc(type(rule).__doc__ or ""))[0]


def _archive(rule, card, theta, **more):
    theta = rule.theta() if theta is None else theta
    arrays = {name: np.asarray(value) for name, value in theta.items()}
    description = {
        "format": FORMAT,
        "rule": rule.rule_name,
        "config": rule.rule_config(),
        "shapes": {name: list(value.shape) for name, value in arrays.items()},
        "sha256": _digest(arrays),
        "card": card or {},
        **more,
    }
    text = json.dumps(description, indent=2, sort_keys=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{_DESCRIPTION: np.frombuffer(text.encode(), np.uint8)})
    return buffer.getvalue(), text


def read_rule(path):
    """The description and the meta-parameters (dict of name -> array) in a saved rule, nothing built.

    Args:
      path: the folder, or the `rule.npz` in it.

    Raises:
      UserError: no such file, not a rule, damaged, or of a newer format.
    """
    file = os.path.join(path, FILE) if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise UserError(f"No rule at {path!r}: expected a folder with {FILE}, or that file.")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        description = json.loads(arrays.pop(_DESCRIPTION).tobytes().decode())
        version, name, config = description["format"], description["rule"], description["config"]
        digest = description["sha256"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not a saved rule, or it is damaged ({type(error).__name__}).") from error
    if not isinstance(version, int) or version > FORMAT:
        raise UserError(
            f"{file} is of format {version}; this program reads up to {FORMAT}. Upgrade meta_rules."
        )
    if digest != _digest(arrays) or not isinstance(name, str) or not isinstance(config, dict):
        raise UserError(f"{file} is damaged: its checksum does not fit. Copy or train it again.")
    return description, arrays


def load_rule(path):
    """The rule saved in a folder by `save_rule`, by a training run (`RUN_DIR/rule`) or by the checkpoint importer.

    Raises:
      UserError: see `read_rule`; also a rule that this version does not know.
    """
    description, arrays = read_rule(path)
    rule = rules.make(description["rule"], **description["config"])
    try:
        rule.assign(arrays)
    except ValueError as error:
        raise UserError(f"{path} does not fit this version of the rule: {error}") from error
    return rule


def assign_saved(rule, path):
    """Gives a rule the meta-parameters of a shipped rule, or of the saved one in a folder or in `rule.npz`.

    Raises:
      UserError: see `read_rule`; also another kind of rule, or one of other sizes; or no such rule is shipped.
    """
    if pretrained.is_shipped_name(path):
        path = pretrained.path(path)
    description, arrays = read_rule(path)
    if description["rule"] != rule.rule_name:
        raise UserError(
            f"The rule in {path} is of the kind {description['rule']!r}; this run trains {rule.rule_name!r}."
        )
    try:
        rule.assign(arrays)
    except ValueError as error:
        raise UserError(f"The rule in {path} does not fit the one of this run. {error}") from error


def resolve(name_or_path):
    """What `--rule` means everywhere: a shipped rule, a registered rule's name, or the path of a saved rule.

    `pretrained`, `pretrained:NAME` and `pretrained:NAME-VERSION` are shipped rules (see `meta_rules.pretrained`); a registered
    name is that rule as it starts, not meta-trained.

    Raises:
      UserError: none of them; or see `load_rule`.
    """
    name_or_path = os.fspath(name_or_path)
    if pretrained.is_shipped_name(name_or_path):
        return load_rule(pretrained.path(name_or_path))
    if name_or_path in rules.REGISTRY:
        return rules.make(name_or_path)
    if os.path.exists(name_or_path):
        return load_rule(name_or_path)
    raise UserError(
        f"No rule {name_or_path!r}: give 'pretrained', the path of a saved rule, or one of "
        f"{', '.join(sorted(rules.REGISTRY))}."
    )


def card_of(name_or_path):
    """The card of what `resolve` would give; empty for a rule that is not meta-trained."""
    name_or_path = os.fspath(name_or_path)
    if pretrained.is_shipped_name(name_or_path):
        name_or_path = pretrained.path(name_or_path)
    elif name_or_path in rules.REGISTRY:
        return {}
    return read_rule(name_or_path)[0].get("card", {})


def _digest(arrays):
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
