"""Meta-learning algorithms by name, each composed of an agent, an adapter, an objective and an outer rule.

`recipes` names them, `presets` has the settings that suit a task family, `settings` and `reads` what each may be given.
`by_gradient`, `in_context`, `generation` and `learned_learning` compose them from what `composition` offers.
"""

from jaxmeta.algorithms.by_gradient import finetune, meta_sgd, reptile, scratch, trained_by
from jaxmeta.algorithms.generation import hypernetwork, mapping
from jaxmeta.algorithms.in_context import attentive, content_addressed, recurrent, trained_in_context
from jaxmeta.algorithms.learned_learning import hyper_policy, learned_rule, update_rule

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
