"""Meta-learning of weight-update rules for unsupervised representation learning.

Importing this package imports nothing else; the names below load what they need when they are first used.
"""

import importlib

from meta_rules.version import __version__

_LAZY = {
    "RuleLearner": "learner",
    "load_rule": "saved_rules",
    "pretrain": "pretraining",
    "save_rule": "saved_rules",
    "shipped_rules": "pretrained",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(f"meta_rules.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'meta_rules' has no attribute {name!r}")
