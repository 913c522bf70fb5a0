"""Update rules: one file each, all in one registry."""

from meta_rules.rules.base import REGISTRY, Side, UpdateRule, make, per_task, register
from meta_rules.rules.bcm import BCMRule
from meta_rules.rules.competitive import CompetitiveRule
from meta_rules.rules.default import DefaultRule
from meta_rules.rules.foldiak import FoldiakRule
from meta_rules.rules.genome import GenomeRule
from meta_rules.rules.metz2019 import Metz2019
from meta_rules.rules.oja import OjaRule
from meta_rules.rules.sanger import SangerRule
from meta_rules.rules.semi_supervised import SemiSupervisedRule

__all__ = [
    "REGISTRY",
    "BCMRule",
    "CompetitiveRule",
    "DefaultRule",
    "FoldiakRule",
    "GenomeRule",
    "Metz2019",
    "OjaRule",
    "SangerRule",
    "SemiSupervisedRule",
    "Side",
    "UpdateRule",
    "make",
    "per_task",
    "register",
]
