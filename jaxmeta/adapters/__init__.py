"""Adapters: how a learner lives one lifetime in one task."""

from jaxmeta.adapters.generated import Source, generated
from jaxmeta.adapters.gradient_steps import Learner, Start, gradient_steps, in_head
from jaxmeta.adapters.hyper_policy import hyper_policy
from jaxmeta.adapters.in_context import in_context
from jaxmeta.adapters.random_policy import pose_openly, random_policy
from jaxmeta.adapters.without_learning import without_learning

__all__ = [
    "Learner",
    "Source",
    "Start",
    "generated",
    "gradient_steps",
    "hyper_policy",
    "in_context",
    "in_head",
    "pose_openly",
    "random_policy",
    "without_learning",
]
