"""How a learner adapts within one lifetime; each module builds an `Adapter`.

`gradient` takes gradient steps (MAML and its kin; `forward_over_reverse` makes their derivatives cheaper), `in_context`
lets a memory do the learning, `generated` generates parameters, by a `hypernetwork` or by a `mapping` from known tasks
(`parameter_maps`), `hyper_policy` sets hyper-parameters round by round. `optimizers` and `learned_optimizers` say how a
gradient changes parameters; `without_learning` and `random_policy` learn nothing.
"""

from jaxmeta.inner.generated import Source, generated
from jaxmeta.inner.gradient import Initialisation, InnerState, gradient_steps, in_head
from jaxmeta.inner.hyper_policy import hyper_policy
from jaxmeta.inner.in_context import in_context
from jaxmeta.inner.random_policy import privileged_task, random_policy
from jaxmeta.inner.without_learning import without_learning

__all__ = [
    "Initialisation",
    "InnerState",
    "Source",
    "generated",
    "gradient_steps",
    "hyper_policy",
    "in_context",
    "in_head",
    "privileged_task",
    "random_policy",
    "without_learning",
]
