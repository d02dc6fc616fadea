"""DQN on CartPole-v1 by the engine: one long life in one task, with the settings that rejax's worker gets."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from dqn import timed_training
from wire import serve

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import Task, TaskDistribution
from jaxmeta.inner.gradient import GradientConfig, gradient_steps
from jaxmeta.inner.optimizers import INNER_OPTIMIZERS
from jaxmeta.rl import replay
from jaxmeta.rl.q_learning import QLearningConfig, q_learner
from jaxmeta_envs.from_gymnax.family import environment_of

programs: dict[str, Any] = {}


class DuelingNetwork(nn.Module):
    """Two layers of 64 with swish, and heads of value and advantage: rejax's network, parameter for parameter."""

    num_actions: int

    @nn.compact
    def __call__(self, features):
        """Maps features [D] float32 to action values [A] float32."""
        for _ in range(2):
            features = nn.swish(nn.Dense(64)(features))
        value, advantage = nn.Dense(1)(features), nn.Dense(self.num_actions)(features)
        return value + advantage - jnp.mean(advantage)


def prepare(settings: dict[str, Any], episodes: int, horizon: int) -> dict[str, Any]:
    """Builds the programs; nothing is compiled yet."""
    s = settings
    envs = s["num_envs"]
    env = environment_of("CartPole-v1")
    task = Task(env.default_params, None)
    spec = spec_of(TaskDistribution(env=env, sample=lambda key, split: task.env_params, horizon=horizon))
    config = QLearningConfig(
        double=s["ddqn"],
        n_step=1,
        batch_size=s["batch_size"],
        replay_capacity=s["buffer_size"] // envs,
        discount=s["gamma"],
        epsilon=s["eps_start"],
        temperature=0.0,
        # The target follows every gradient step; together they take it as far as rejax's one step of `polyak`.
        target_step_size=1 - s["polyak"] ** (1 / s["num_epochs"]),
    )
    agent = q_learner(spec, DuelingNetwork(env.num_actions), config)
    inner = GradientConfig(
        num_steps=s["num_epochs"], learning_rate=s["learning_rate"], max_gradient_norm=s["max_grad_norm"]
    )
    filling_rounds = s["fill_buffer"] // envs + 1
    filling = AdaptationConfig(num_envs=envs, rollout_length=1, num_adaptations=filling_rounds)
    one_round = AdaptationConfig(num_envs=envs, rollout_length=1, num_adaptations=1)
    learner = gradient_steps(agent, one_round, inner, INNER_OPTIMIZERS["adam"])
    collector = learner._replace(
        adapt=lambda key, meta, fast, taken: (fast.replace(replay=replay.add(fast.replay, taken)), {})
    )
    epsilon = optax.linear_schedule(s["eps_start"], s["eps_end"], int(s["exploration_fraction"] * s["total_timesteps"]))

    def train(key):
        init_key, begin_key, fill_key, learn_key = jax.random.split(key, 4)
        meta = learner.init(init_key)
        life = Runner(env, learner).reset(begin_key, meta, task, envs)
        life, _ = Runner(env, collector).adapt_for(fill_key, meta, task, life, filling, lambda key, lived: None)

        def learn(life, now):
            index, key = now
            hyperparams = life.fast.hyperparams.replace(epsilon=epsilon(index * envs))
            life = life.replace(fast=life.fast.replace(hyperparams=hyperparams))
            return Runner(env, learner).adapt_for(key, meta, task, life, one_round, lambda key, lived: None)

        rounds = s["total_timesteps"] // envs
        keys = jax.random.split(learn_key, rounds - filling_rounds)
        return meta, jax.lax.scan(learn, life, (jnp.arange(filling_rounds, rounds), keys))[0]

    def returns_of(key, arrived):
        meta, life = arrived
        played = Runner(env, learner).evaluate_policy(key, meta, task, life, episodes, horizon)
        return played.episode_return

    def counts(arrived):
        fast = arrived[1].fast
        return {"updates": int(fast.rule.count), "env_steps": int(fast.replay.written) * envs}

    programs.update(train=jax.jit(train), returns_of=jax.jit(returns_of), counts=counts)
    return {"jax": jax.__version__}


def train(seed: int) -> dict[str, Any]:
    """A whole training."""
    return timed_training(seed, **programs)


if __name__ == "__main__":
    serve({"prepare": prepare, "train": train})
