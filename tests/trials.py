"""Trials lived by a policy."""

import jax

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.evaluation import measurement


def trial_returns(tasks, policy, lifetime, number):
    """Total reward of a lifetime, a mean over its environments, in each of `number` test tasks; [number]."""
    learner = make_learner("scratch", tasks)._replace(adapter=policy, lifetime=lifetime)
    return next(measurement.trials(jax.random.key(0), learner, None, tasks, number))
