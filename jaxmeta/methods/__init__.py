"""Methods: how each recipe is composed from an agent, an adapter, an objective and an outer rule."""

from jaxmeta.methods.by_gradient import finetune, meta_sgd, reptile, scratch, trained_by
from jaxmeta.methods.generation import hypernetwork, mapping
from jaxmeta.methods.in_context import attentive, content_addressed, recurrent, trained_in_context
from jaxmeta.methods.learned_learning import hyper_policy, learned_rule, update_rule

__all__ = [
    "attentive",
    "content_addressed",
    "finetune",
    "hyper_policy",
    "hypernetwork",
    "learned_rule",
    "mapping",
    "meta_sgd",
    "recurrent",
    "reptile",
    "scratch",
    "trained_by",
    "trained_in_context",
    "update_rule",
]
