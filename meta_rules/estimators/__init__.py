"""Meta-gradient estimators: one file each, all in one registry."""

from meta_rules.estimators.base import REGISTRY, Estimate, Estimator, register
from meta_rules.estimators.truncated_bptt import TruncatedBPTT

__all__ = ["REGISTRY", "Estimate", "Estimator", "TruncatedBPTT", "register"]
