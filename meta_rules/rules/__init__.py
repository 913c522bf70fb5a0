"""Update rules: one file each, all in one registry."""

from meta_rules.rules.base import REGISTRY, UpdateRule, make, per_task, register

__all__ = ["REGISTRY", "UpdateRule", "make", "per_task", "register"]
