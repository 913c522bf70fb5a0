"""Meta-learning of weight-update rules for unsupervised representation learning."""

from meta_rules.version import __version__

__all__ = ["__version__"]
