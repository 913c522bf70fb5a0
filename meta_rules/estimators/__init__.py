"""Meta-gradient estimators: one file each, all in one registry."""

from meta_rules.estimators.antithetic_es import AntitheticES
from meta_rules.estimators.base import REGISTRY, Estimate, Estimator, register
from meta_rules.estimators.black_box import BlackBox
from meta_rules.estimators.cma_es import CMAES
from meta_rules.estimators.full_bptt import FullBPTT
from meta_rules.estimators.nres import NRES
from meta_rules.estimators.openai_es import OpenAIES
from meta_rules.estimators.pes import PES
from meta_rules.estimators.truncated_bptt import TruncatedBPTT

__all__ = [
    "CMAES",
    "NRES",
    "PES",
    "REGISTRY",
    "AntitheticES",
    "BlackBox",
    "Estimate",
    "Estimator",
    "FullBPTT",
    "OpenAIES",
    "TruncatedBPTT",
    "register",
]
