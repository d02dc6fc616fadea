"""Settings by task family that several algorithms share, found on validation tasks; docs/experiments says how."""

from collections.abc import Iterable, Mapping
from typing import Any

Settings = Mapping[str, Any]
"""By path. What an algorithm has no field for does not apply to it."""
Families = Mapping[str, Settings]
"""By name of a task family."""

_ON_A_GRID: Settings = {
    "adaptation.num_envs": 4,
    "adaptation.num_adaptations": 3,
    "agent.replay_capacity": 3,
    "agent.temperature": 0.2,
    "agent.epsilon": 0.8,
    "agent.epsilon_decay": 0.6,
    "agent.stickiness": 0.5,
    "inner.num_steps": 3,
    "inner.learning_rate": 1.0,
    "inner.max_gradient_norm": 1.0,
    "objective.lifetimes_per_task": 2,
    "objective.entropy": 0.03,
    "outer.tasks_per_batch": 10,
    "outer.learning_rate": 5e-3,
    "meta_steps": 1000,
}

_ONE_EPISODE_AN_ADAPTATION: Settings = {
    "adaptation.num_envs": 1,
    "agent.replay_capacity": 10,
    "agent.epsilon": 1.0,
    "inner.learning_rate": 0.3,
    "inner.max_gradient_norm": 1.0,
    "objective.num_query_envs": 4,
    "outer.learning_rate": 3e-3,
}

ACTION_VALUES: Families = {
    "grid_navi": _ON_A_GRID,
    "maze": {
        **_ON_A_GRID,
        "adaptation.num_envs": 1,
        "adaptation.num_adaptations": 2,
        "agent.hidden": (256,),
        "agent.replay_capacity": 2,
        "agent.epsilon_decay": 0.8,
        "objective.num_query_envs": 8,
        "objective.scored": "before_and_every",
        "meta_steps": 4000,
    },
    "cartpole": {
        "adaptation.num_envs": 4,
        "adaptation.num_adaptations": 2,
        "agent.replay_capacity": 2,
        "agent.batch_size": 256,
        "agent.temperature": 1.0,
        "agent.epsilon_decay": 0.3,
        "inner.num_steps": 3,
        "inner.learning_rate": 0.1,
        "inner.max_gradient_norm": 10.0,
        "objective.num_query_envs": 8,
        "objective.outer_discount": 0.97,
        "outer.tasks_per_batch": 10,
        "outer.learning_rate": 3e-3,
        "meta_steps": 400,
    },
    "recommender": {
        "adaptation.num_envs": 1,
        "adaptation.num_adaptations": 4,
        "agent.hidden": (32, 32),
        "agent.replay_capacity": 4,
        "agent.n_step": 1,
        "agent.discount": 0.8,
        "agent.temperature": 0.1,
        "agent.epsilon": 1.0,
        "agent.epsilon_decay": 0.3,
        "inner.num_steps": 3,
        "inner.learning_rate": 0.3,
        "inner.max_gradient_norm": 1.0,
        "objective.lifetimes_per_task": 2,
        "outer.learning_rate": 3e-3,
        "meta_steps": 1000,
    },
    "bandit": {
        **_ONE_EPISODE_AN_ADAPTATION,
        "agent.discount": 1.0,
        "agent.temperature": 0.05,
        "agent.epsilon_decay": 0.9,
        "inner.num_steps": 2,
    },
    "tabular_mdp": {
        **_ONE_EPISODE_AN_ADAPTATION,
        "agent.discount": 0.3,
        "agent.temperature": 0.1,
        "agent.epsilon_decay": 0.8,
        "inner.num_steps": 3,
    },
}
"""What suits gradient steps on action values."""

POLICIES: Families = {
    "point_navigation": {
        "adaptation.num_envs": 20,
        "adaptation.num_adaptations": 3,
        "agent.discount": 0.99,
        "agent.initial_scale": 0.3,
        "inner.learning_rate": 0.1,
        "inner.max_gradient_norm": 2.0,
        "objective.num_query_envs": 20,
        "objective.entropy": 0.0,
        "objective.scored": "before_and_every",
        "outer.tasks_per_batch": 20,
        "outer.tasks_per_group": 2,
        "outer.learning_rate": 2e-3,
        "outer.final_learning_rate_fraction": 0.0,
        "meta_steps": 400,
    },
}
"""The same where the agent is a policy."""

_LONG_Q_LEARNING: Settings = {
    "agent.hidden": (32, 32),
    "agent.batch_size": 32,
    "agent.n_step": 1,
    "agent.temperature": 0.0,
    "agent.discount": 0.9,
    "agent.epsilon": 1.0,
    "inner.learning_rate": 1e-2,
    "inner.max_gradient_norm": 0.0,
    "outer.tasks_per_batch": 14,
    "outer.num_perturbations": 16,
    "outer.perturbation_scale": 0.25,
    "outer.learning_rate": 0.06,
}

LONG_LIFETIMES: Families = {
    "grid_navi": {
        **_LONG_Q_LEARNING,
        "adaptation.num_envs": 2,
        "adaptation.num_adaptations": 100,
        "agent.replay_capacity": 100,
        "agent.epsilon_decay": 0.97,
        "agent.target_step_size": 0.1,
        "inner.num_steps": 1,
        "objective.num_query_envs": 2,
        "meta_steps": 150,
    },
    "cartpole": {
        **_LONG_Q_LEARNING,
        "adaptation.num_envs": 4,
        "adaptation.rollout_length": 50,
        "adaptation.num_adaptations": 30,
        "agent.replay_capacity": 30,
        "agent.epsilon_decay": 0.9,
        "agent.target_step_size": 0.3,
        "inner.num_steps": 8,
        "objective.num_query_envs": 1,
        "meta_steps": 60,
    },
}
"""What suits Q-learning over lifetimes of many rollouts, where learning itself is learned."""


def over(shared: Families, own: Families, but: Iterable[str] = ()) -> Families:
    """An algorithm's own settings over shared ones.

    Args:
      shared: by family.
      own: by family.
      but: shared settings that the algorithm leaves at its own defaults.

    >>> over({"maze": {"a": 1, "b": 1, "c": 1}}, {"maze": {"a": 2}, "reacher": {"b": 3}}, but=["c"])
    {'maze': {'a': 2, 'b': 1}, 'reacher': {'b': 3}}
    """
    kept = {family: {n: v for n, v in settings.items() if n not in but} for family, settings in shared.items()}
    return {family: {**kept.get(family, {}), **own.get(family, {})} for family in dict.fromkeys([*shared, *own])}
