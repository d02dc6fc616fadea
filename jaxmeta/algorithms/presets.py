"""Settings found on validation tasks; docs/experiments has a page a family that says how."""

from typing import Any

_ON_A_GRID: dict[str, Any] = {
    "envs": 4,
    "rounds": 3,
    "replay_rounds": 3,
    "inner_steps": 3,
    "learning_rate": 1.0,
    "max_inner_norm": 1.0,
    "temperature": 0.2,
    "epsilon": 0.8,
    "epsilon_decay": 0.6,
    "stickiness": 0.5,
    "tasks_per_batch": 10,
    "lives_per_task": 2,
    "entropy": 0.03,
    "outer_learning_rate": 5e-3,
    "meta_steps": 1000,
}

_ONE_EPISODE_A_ROUND: dict[str, Any] = {
    "envs": 1,
    "replay_rounds": 10,
    "learning_rate": 0.3,
    "max_inner_norm": 1.0,
    "epsilon": 1.0,
    "query_envs": 4,
    "outer_learning_rate": 3e-3,
}

FAMILY_SETTINGS: dict[str, dict[str, Any]] = {
    "grid_navi": _ON_A_GRID,
    "maze": _ON_A_GRID
    | {
        "hidden": (256,),
        "envs": 1,
        "rounds": 2,
        "replay_rounds": 2,
        "epsilon_decay": 0.8,
        "query_envs": 8,
        "scored_rounds": "before_and_every",
        "meta_steps": 4000,
    },
    "cartpole": {
        "envs": 4,
        "rounds": 2,
        "replay_rounds": 2,
        "batch_size": 256,
        "inner_steps": 3,
        "learning_rate": 0.1,
        "max_inner_norm": 10.0,
        "temperature": 1.0,
        "epsilon_decay": 0.3,
        "tasks_per_batch": 10,
        "query_envs": 8,
        "outer_discount": 0.97,
        "outer_learning_rate": 3e-3,
        "meta_steps": 400,
    },
    "recommender": {
        "hidden": (32, 32),
        "envs": 1,
        "rounds": 4,
        "replay_rounds": 4,
        "inner_steps": 3,
        "learning_rate": 0.3,
        "max_inner_norm": 1.0,
        "n_step": 1,
        "discount": 0.8,
        "temperature": 0.1,
        "epsilon": 1.0,
        "epsilon_decay": 0.3,
        "lives_per_task": 2,
        "outer_learning_rate": 3e-3,
        "meta_steps": 1000,
    },
    "bandit": _ONE_EPISODE_A_ROUND | {"discount": 1.0, "temperature": 0.05, "epsilon_decay": 0.9, "inner_steps": 2},
    "tabular_mdp": _ONE_EPISODE_A_ROUND | {"discount": 0.3, "temperature": 0.1, "epsilon_decay": 0.8, "inner_steps": 3},
}
"""By task family, what suits gradient steps on action values."""

POLICY_SETTINGS: dict[str, dict[str, Any]] = {
    "point_navigation": {
        "envs": 20,
        "rounds": 3,
        "query_envs": 20,
        "learning_rate": 0.1,
        "max_inner_norm": 2.0,
        "discount": 0.99,
        "initial_scale": 0.3,
        "entropy": 0.0,
        "scored_rounds": "before_and_every",
        "tasks_per_batch": 20,
        "tasks_per_group": 2,
        "outer_learning_rate": 2e-3,
        "learning_rate_left": 0.0,
        "meta_steps": 400,
    },
}
"""By task family, the same where the agent is a policy (`actor_critic`)."""

ON_TRIALS: dict[str, Any] = {
    "envs": 1,
    "discount": 0.99,
    "memory_width": 64,
    "tasks_per_batch": 256,
    "outer_learning_rate": 3e-3,
    "learning_rate_left": 0.0,
    "meta_steps": 500,
}
"""What suits learners in context."""

ON_ATTENDED_TRIALS: dict[str, Any] = ON_TRIALS | {"outer_learning_rate": 1e-3}
"""What suits those that attend to all of a trial: what is too fast for them suits a GRU."""

TRIALS: dict[str, dict[str, Any]] = {
    "bandit": {"discount": 1.0, "tasks_per_batch": 1024},
    "gaussian_bandit": {"discount": 1.0, "tasks_per_batch": 1024},
    "grid_navi": {"discount": 0.97, "rounds": 4},
    "tabular_mdp": {
        "memory_width": 128,
        "gae_lambda": 0.3,
        "outer_learning_rate": 1e-2,
        "entropy": 0.1,
        "entropy_left": 0.1,
        "meta_steps": 4000,
    },
}
"""By task family, what differs from that."""

ON_LONG_LIVES: dict[str, Any] = {
    "outer_gradient": "es",
    "outer_loss": "return",
    "lives_per_task": 1,
    "learning_rate_left": 0.0,
}
"""What suits learners over long lifetimes."""

_LONG_DQN: dict[str, Any] = {
    "hidden": (32, 32),
    "batch_size": 32,
    "learning_rate": 1e-2,
    "max_inner_norm": 0.0,
    "n_step": 1,
    "temperature": 0.0,
    "discount": 0.9,
    "epsilon": 1.0,
    "tasks_per_batch": 14,
    "population": 16,
    "perturbation": 0.25,
    "outer_learning_rate": 0.06,
}

RULES: dict[str, dict[str, Any]] = {
    "grid_navi": _LONG_DQN
    | {
        "envs": 2,
        "rounds": 100,
        "replay_rounds": 100,
        "inner_steps": 1,
        "epsilon_decay": 0.97,
        "target_step_size": 0.1,
        "query_envs": 2,
        "meta_steps": 150,
    },
    "cartpole": _LONG_DQN
    | {
        "envs": 4,
        "steps": 50,
        "rounds": 30,
        "replay_rounds": 30,
        "inner_steps": 8,
        "epsilon_decay": 0.9,
        "target_step_size": 0.3,
        "query_envs": 1,
        "meta_steps": 60,
    },
}
"""By task family, for learned update rules."""

GOVERNORS: dict[str, dict[str, Any]] = {
    "grid_navi": RULES["grid_navi"]
    | {
        "inner_optimizer": "rmsprop",
        "n_step": 3,
        "mixed_targets": True,
        "mixing": 0.1,
        "learning_rate": 3e-3,
        "epsilon": 0.5,
        "perturbation": 0.15,
        "meta_steps": 100,
    },
    "tabular_mdp": {
        "agent": "tabular_q",
        "envs": 1,
        "steps": 50,
        "rounds": 20,
        "replay_rounds": 8,
        "inner_optimizer": "adam",
        "inner_steps": 8,
        "n_step": 5,
        "mixed_targets": True,
        "learning_rate": 0.3,
        "max_inner_norm": 0.0,
        "discount": 0.3,
        "epsilon": 0.6,
        "epsilon_decay": 1.0,
        "mixing": 0.1,
        "target_step_size": 0.5,
        "temperature": 0.0,
        "tasks_per_batch": 48,
        "population": 8,
        "perturbation": 0.15,
        "query_envs": 4,
        "outer_learning_rate": 0.06,
        "meta_steps": 60,
    },
}
"""By task family, for policies over hyper-parameters."""

CARRIED: dict[str, Any] = {
    "batch_size": 64,
    "inner_steps": 20,
    "inner_optimizer": "adam",
    "learning_rate": 1e-4,
    "max_inner_norm": 0.0,
    "n_step": 1,
    "temperature": 0.0,
    "target_step_size": 0.05,
    "rounds": 4,
    "replay_rounds": 4,
    "epsilon": 0.3,
    "epsilon_decay": 1.0,
    "learning_rate_left": 0.0,
}
"""What suits a map between Q-networks."""

MAPS: dict[str, dict[str, Any]] = {
    "tabular_mdp": {"envs": 16, "query_envs": 16, "discount": 0.95, "outer_learning_rate": 1e-3},
    "grid_navi": {
        "envs": 8,
        "learning_rate": 3e-3,
        "source_epsilon": 0.5,
        "outer_learning_rate": 1e-3,
        "meta_steps": 1000,
    },
    "recommender": {
        "epsilon": 1.0,
        "epsilon_decay": 0.3,
        "sources": 32,
        "source_epsilon": 0.5,
        "source_steps": 20,
        "source_replay_rounds": 800,
        "representation": "inferred",
        "reads": "attention",
        "outer_learning_rate": 2e-3,
        "learning_rate_left": 1.0,
        "meta_steps": 600,
    },
}
"""By task family, what differs from that."""

HYPERNETWORKS: dict[str, dict[str, Any]] = {
    "recommender": {
        "generated": "whole",
        "outer_loss": "td",
        "scored_rounds": "before_and_every",
        "lives_per_task": 1,
        "tasks_per_batch": 40,
        "learning_rate_left": 0.0,
        "meta_steps": 1500,
    },
}
"""By task family, for a network that puts out a Q-network."""
