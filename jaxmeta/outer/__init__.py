"""Outer rules: how meta-parameters are trained."""

from jaxmeta.outer.descent import meta_gradient, reptile
from jaxmeta.outer.policy_optimisation import policy_optimisation
from jaxmeta.outer.pretraining import pretraining
from jaxmeta.outer.proximal import proximal

__all__ = ["meta_gradient", "policy_optimisation", "pretraining", "proximal", "reptile"]
