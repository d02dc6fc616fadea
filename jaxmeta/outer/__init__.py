"""Outer rules: how meta-parameters are trained."""

from jaxmeta.outer.descent import meta_gradient, reptile
from jaxmeta.outer.pretraining import pretraining

__all__ = ["meta_gradient", "pretraining", "reptile"]
