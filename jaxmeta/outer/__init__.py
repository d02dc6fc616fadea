"""Outer rules: how meta-parameters are trained."""

from jaxmeta.outer.carrying import carrying
from jaxmeta.outer.descent import meta_gradient, reptile
from jaxmeta.outer.policy_optimisation import policy_optimisation
from jaxmeta.outer.pretraining import pretraining
from jaxmeta.outer.proximal import proximal
from jaxmeta.outer.stretches import by_stretches

__all__ = ["by_stretches", "carrying", "meta_gradient", "policy_optimisation", "pretraining", "proximal", "reptile"]
