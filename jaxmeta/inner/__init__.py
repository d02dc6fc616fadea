"""How a learner adapts within one lifetime; each module builds an `Adapter`.

`gradient` takes gradient steps (MAML and variants; `forward_over_reverse` makes their derivatives cheaper),
`in_context` learns by a memory, `generated` generates parameters, by a `hypernetwork` or by a `mapping` of known tasks
(`parameter_maps`), `hyper_policy` sets hyper-parameters round by round. `optimizers` and `learned_optimizers` say how a
gradient changes parameters; `without_learning` and `random_policy` learn nothing.
"""

from jaxmeta.inner.generated import Source, generated
from jaxmeta.inner.gradient import (
    GradientConfig,
    Initialisation,
    InnerOptimizerConfig,
    InnerState,
    gradient_steps,
    in_head,
)
from jaxmeta.inner.hyper_policy import PolicyConfig, hyper_policy
from jaxmeta.inner.in_context import in_context
from jaxmeta.inner.learned_optimizers import UpdateRuleConfig
from jaxmeta.inner.mapping import BankLossConfig
from jaxmeta.inner.optimizers import UpdateRule
from jaxmeta.inner.parameter_maps import MapConfig
from jaxmeta.inner.random_policy import privileged_task, random_policy
from jaxmeta.inner.without_learning import without_learning

__all__ = [
    "BankLossConfig",
    "GradientConfig",
    "Initialisation",
    "InnerOptimizerConfig",
    "InnerState",
    "MapConfig",
    "PolicyConfig",
    "Source",
    "UpdateRule",
    "UpdateRuleConfig",
    "generated",
    "gradient_steps",
    "hyper_policy",
    "in_context",
    "in_head",
    "privileged_task",
    "random_policy",
    "without_learning",
]
