"""How well a learner adapts, beside honest baselines.

`evaluate` adapts to tasks of a split and scores the result between random and the oracle; `measurement` measures
returns and costs, `statistics` has means and intervals, `lifetimes` records a lifetime step by step.
`baselines` and `tuned_baselines` tune `scratch` and `finetune` on validation tasks; `baseline_cache` keeps the results.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
