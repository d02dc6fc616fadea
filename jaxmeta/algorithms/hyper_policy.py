"""A policy that sets Q-learning's hyper-parameters, before every rollout of a lifetime.

References: Xu, van Hasselt and Silver (2018), meta-gradients; Parker-Holder et al. (2022) for the field.
"""

from typing import ClassVar

from jaxmeta.algorithms.families import ACTION_VALUES, LONG_LIFETIMES, Families, over
from jaxmeta.algorithms.learned_optimizer import OF_BACKPROPAGATION
from jaxmeta.algorithms.maml import MAMLConfig, inner_loop, meta_trained
from jaxmeta.core.errors import require
from jaxmeta.core.spec import described, description_size, hidden, spec_of
from jaxmeta.core.types import MetaLearner, TaskDistribution
from jaxmeta.inner import hyper_policy as adapter
from jaxmeta.inner.hyper_policy import PolicyConfig
from jaxmeta.outer.meta_gradient import MetaGradientConfig
from jaxmeta.outer.objectives import ObjectiveConfig
from jaxmeta.rl import DQNConfig, TabularQConfig, make_agent

OWN: Families = {
    "grid_navi": {
        **LONG_LIFETIMES["grid_navi"],
        "agent.n_step": 3,
        "agent.mixed_targets": True,
        "agent.mixing": 0.1,
        "agent.epsilon": 0.5,
        "inner.optimizer": "rmsprop",
        "inner.learning_rate": 3e-3,
        "outer.perturbation_scale": 0.15,
        "meta_steps": 100,
    },
    "tabular_mdp": {
        "adaptation.num_envs": 1,
        "adaptation.rollout_length": 50,
        "adaptation.num_adaptations": 20,
        "agent": "tabular_q",
        "agent.replay_capacity": 8,
        "agent.n_step": 5,
        "agent.mixed_targets": True,
        "agent.mixing": 0.1,
        "agent.discount": 0.3,
        "agent.epsilon": 0.6,
        "agent.epsilon_decay": 1.0,
        "agent.target_step_size": 0.5,
        "agent.temperature": 0.0,
        "inner.optimizer": "adam",
        "inner.num_steps": 8,
        "inner.learning_rate": 0.3,
        "inner.max_gradient_norm": 0.0,
        "objective.num_query_envs": 4,
        "outer.tasks_per_batch": 48,
        "outer.num_perturbations": 8,
        "outer.perturbation_scale": 0.15,
        "outer.learning_rate": 0.06,
        "meta_steps": 60,
    },
}
"""Settings by task family, found on validation tasks; docs/experiments says how."""


class HyperPolicyConfig(MAMLConfig, frozen=True, kw_only=True):
    """Settings of the policy over hyper-parameters, and of the learner that it sets; it sets `epsilon` anew each time,
    so that `epsilon_decay` makes no difference.
    """

    agent: DQNConfig | TabularQConfig = DQNConfig()
    policy: PolicyConfig = PolicyConfig()
    objective: ObjectiveConfig = ObjectiveConfig(loss="return")
    outer: MetaGradientConfig = MetaGradientConfig(gradient_estimator="es", final_learning_rate_fraction=0.0)

    families: ClassVar[Families] = over(ACTION_VALUES, OWN, but=OF_BACKPROPAGATION)
    unread: ClassVar[frozenset[str]] = frozenset({"agent.epsilon_decay"})


def hyper_policy(tasks: TaskDistribution, config: HyperPolicyConfig = HyperPolicyConfig()) -> MetaLearner:
    """A policy that sets Q-learning's step size, discount, exploration, targets and mixing, round by round."""
    agent, form, size = make_agent(spec_of(tasks), config.agent), config.policy.form, description_size(tasks)
    privileged = form == "static"
    rule = f"have a description of its tasks, and {tasks.name} has none"
    require(not privileged or size > 0, "policy.form", rule, form)
    how = {"fresh": True, "target_network": True, "adapts": lambda path: path[0].key != "structure"}
    learner = inner_loop(tasks, agent, config, **how)
    layers = len(config.agent.hidden) if isinstance(config.agent, DQNConfig) and config.agent.structure else 0
    adaptations = config.adaptation.num_adaptations
    governed = adapter(learner, form, size, config.policy.width, adaptations, layers)
    make_task = described(tasks) if privileged else hidden
    return meta_trained(tasks, governed, agent, config, lambda path: path[0].name == "policy", make_task)
