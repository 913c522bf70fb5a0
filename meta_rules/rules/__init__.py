"""Update rules: one file each, all in one registry."""

from meta_rules.rules.base import REGISTRY, UpdateRule, make, per_task, register
from meta_rules.rules.default import DefaultRule

__all__ = ["REGISTRY", "DefaultRule", "UpdateRule", "make", "per_task", "register"]
