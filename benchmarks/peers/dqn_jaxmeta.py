"""DQN on CartPole-v1 by the engine: one long life in one task, with the settings that rejax's worker gets."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from dqn import timed_training
from wire import serve

from jaxmeta.algorithms import composition
from jaxmeta.core.config import AgentConfig, InnerConfig, LifetimeConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Hypers, Task, TaskDistribution
from jaxmeta.inner.gradient import gradient_steps
from jaxmeta.inner.optimizers import BY_HAND
from jaxmeta.rl import replay
from jaxmeta.rl.q_learning import q_learner
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
    spec = composition.spec_of(TaskDistribution(env=env, sample=lambda key, split: task.env_params, horizon=horizon))
    agent = q_learner(spec, DuelingNetwork(env.num_actions), AgentConfig(double=s["ddqn"]))
    inner = InnerConfig(
        inner_steps=s["num_epochs"],
        inner_optimizer="adam",
        max_inner_norm=s["max_grad_norm"],
        batch_size=s["batch_size"],
        replay_rounds=s["buffer_size"] // envs,
        n_step=1,
    )
    hypers = {
        "learning_rate": s["learning_rate"],
        "discount": s["gamma"],
        "epsilon": s["eps_start"],
        "epsilon_decay": 1.0,
        "stickiness": 0.0,
        "temperature": 0.0,
        # The target follows every gradient step; together they take it as far as rejax's one step of `polyak`.
        "target_step_size": 1 - s["polyak"] ** (1 / s["num_epochs"]),
    }
    hypers = Hypers(**{name: jnp.float32(value) for name, value in hypers.items()})
    filling_rounds = s["fill_buffer"] // envs + 1
    filling = LifetimeConfig(envs=envs, steps=1, rounds=filling_rounds)
    one_round = LifetimeConfig(envs=envs, steps=1, rounds=1)
    learner = gradient_steps(agent, spec, one_round, inner, hypers, rule=BY_HAND[inner.inner_optimizer])
    collector = learner._replace(
        adapt=lambda key, meta, fast, taken: (fast.replace(replay=replay.add(fast.replay, taken)), {})
    )
    epsilon = optax.linear_schedule(s["eps_start"], s["eps_end"], int(s["exploration_fraction"] * s["total_timesteps"]))

    def train(key):
        init_key, begin_key, fill_key, learn_key = jax.random.split(key, 4)
        meta = learner.init(init_key)
        life = Runner(env, learner).begin(begin_key, meta, task, envs)
        life, _ = Runner(env, collector).live(fill_key, meta, task, life, filling, lambda key, lived: None)

        def learn(life, now):
            index, key = now
            hypers = life.fast.hypers.replace(epsilon=epsilon(index * envs))
            life = life.replace(fast=life.fast.replace(hypers=hypers))
            return Runner(env, learner).live(key, meta, task, life, one_round, lambda key, lived: None)

        rounds = s["total_timesteps"] // envs
        keys = jax.random.split(learn_key, rounds - filling_rounds)
        return meta, jax.lax.scan(learn, life, (jnp.arange(filling_rounds, rounds), keys))[0]

    def returns_of(key, arrived):
        meta, life = arrived
        played = Runner(env, learner).play(key, meta, task, life, episodes, horizon)
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
