"""How meta-parameters are trained; an outer rule does not depend on the algorithm that it trains.

`objectives` scores a lifetime; `meta_gradient` descends on its derivative or on Reptile's displacement; `truncated`
takes long lifetimes a segment at a time, by one of `gradient_estimators`; `ppo` trains memories on whole trials,
`promp` adapted policies within a trust region, `transfer` maps between tasks, `pretraining` the baseline `finetune`.
`batching`, `epochs` and `optimizer` are what they share.
"""

from jaxmeta.outer.batching import BatchConfig, mean_over_tasks
from jaxmeta.outer.epochs import TrustRegionConfig
from jaxmeta.outer.gradient_estimators import Estimator
from jaxmeta.outer.meta_gradient import MetaGradientConfig, meta_gradient, reptile
from jaxmeta.outer.objectives import ObjectiveConfig, ScoreConfig, post_adaptation
from jaxmeta.outer.optimizer import OptimizerConfig, outer_optimizer
from jaxmeta.outer.ppo import PPOConfig, policy_optimisation
from jaxmeta.outer.pretraining import PretrainingConfig, pretraining
from jaxmeta.outer.promp import proximal
from jaxmeta.outer.transfer import transfer_between_tasks
from jaxmeta.outer.truncated import truncated_unrolls

__all__ = [
    "BatchConfig",
    "Estimator",
    "MetaGradientConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PPOConfig",
    "PretrainingConfig",
    "ScoreConfig",
    "TrustRegionConfig",
    "mean_over_tasks",
    "meta_gradient",
    "outer_optimizer",
    "policy_optimisation",
    "post_adaptation",
    "pretraining",
    "proximal",
    "reptile",
    "transfer_between_tasks",
    "truncated_unrolls",
]
