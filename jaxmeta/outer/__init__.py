"""How meta-parameters are trained; an outer rule knows nothing of the method that it trains.

`objectives` scores a lifetime; `meta_gradient` descends on its derivative or on Reptile's displacement; `truncated`
takes long lifetimes a segment at a time, by one of `gradient_estimators`; `ppo` trains memories on whole trials,
`promp` adapted policies within a trust region, `transfer` maps between tasks, `pretraining` the baseline `finetune`.
`batching`, `epochs` and `optimizer` are what they share.
"""

from jaxmeta.outer.meta_gradient import meta_gradient, reptile
from jaxmeta.outer.ppo import policy_optimisation
from jaxmeta.outer.pretraining import pretraining
from jaxmeta.outer.promp import proximal
from jaxmeta.outer.transfer import transfer_between_tasks
from jaxmeta.outer.truncated import truncated_unrolls

__all__ = [
    "meta_gradient",
    "policy_optimisation",
    "pretraining",
    "proximal",
    "reptile",
    "transfer_between_tasks",
    "truncated_unrolls",
]
