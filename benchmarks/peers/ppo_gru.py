"""PPO with a recurrent network over tasks, in one file: the way in which RL^2 is commonly trained on XLand-MiniGrid.

This is a re-implementation in the style of that library's baseline, not the library's own script, which serves its
own environments alone. What it takes from there: environments are stepped for a window at a time, with the cell's state
carried from one window to the next and cleared where a trial begins; each window is learned from at once, by epochs
over minibatches of environments, along which the network is run anew from the state that the window began with; the
advantages of a minibatch are normalised, and the value's loss is clipped like the policy's. What it takes from the
engine, so that only the way of training differs: the environment and its tasks, the numbers that the network is shown,
its layers, and the settings. The value's loss is in units of returns.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from recurrent import serve_updates

from jaxmeta.algorithms.registry import configure
from jaxmeta.algorithms.rl2 import RL2Config
from jaxmeta.core import tasks
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import sample_tasks


class Cell(nn.Module):
    """A step of a GRU, whose state is cleared first where asked."""

    width: int

    @nn.compact
    def __call__(self, hidden, inputs):
        """Maps hidden [B, width] and (features [B, F], clear [B] bool) to hidden, twice."""
        features, clear = inputs
        return nn.GRUCell(self.width)(jnp.where(clear[:, None], 0.0, hidden), features)


class ActorCritic(nn.Module):
    """A GRU along time, read by products with the features, and linear heads of policy and value."""

    num_actions: int
    width: int

    @nn.compact
    def __call__(self, hidden, features, clear):
        """Maps hidden [B, width], features [T, B, F] and clear [T, B] to hidden, logits [T, B, A] and values [T, B]."""
        along_time = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False})
        hidden, seen = along_time(self.width)(hidden, (features, clear))
        seen = nn.Dense(self.width, bias_init=nn.initializers.ones)(features) * nn.Dense(self.width)(seen)
        logits = nn.Dense(self.num_actions, kernel_init=nn.initializers.orthogonal(0.01))(seen)
        return hidden, logits, nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))(seen)[..., 0]


class Transition(NamedTuple):
    """A window of experience, leaves [T, B, ...]."""

    features: jax.Array
    clear: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array


def build(task_family: str, settings: dict[str, Any], trial: int, window: int):
    """`init(key)`, a training state; `update(key, state)`, which lives one trial of fresh tasks; and the parameters."""
    distribution = tasks.make_tasks(task_family)
    config = configure("rl2", distribution, settings)
    assert isinstance(config, RL2Config)
    env, ppo, region, width = distribution.env, config.outer, config.outer.trust_region, config.memory.width
    num_envs = ppo.tasks_per_batch
    num_actions = spec_of(distribution).num_actions
    assert num_actions is not None, "the heads are for discrete actions"
    network = ActorCritic(num_actions, width)
    optimizer = optax.chain(optax.clip_by_global_norm(ppo.max_gradient_norm), optax.adam(ppo.learning_rate))
    step_envs, reset_envs = jax.vmap(env.step), jax.vmap(env.reset)

    def features_of(before, action, reward, first, observation):
        parts = (before, jax.nn.one_hot(action, num_actions), reward, first, observation)
        return jnp.concatenate([part.reshape(num_envs, -1).astype(jnp.float32) for part in parts], axis=-1)

    def begin(key):
        """Fresh tasks, and what is carried from step to step."""
        task_key, reset_key = jax.random.split(key)
        env_params = sample_tasks(task_key, distribution, "train", num_envs)
        observation, env_state = reset_envs(jax.random.split(reset_key, num_envs), env_params)
        nothing, yes = jnp.zeros(num_envs), jnp.ones(num_envs, bool)
        features = features_of(jnp.zeros_like(observation), nothing.astype(jnp.int32), nothing, yes, observation)
        return env_params, (env_state, observation, features, yes, jnp.zeros((num_envs, width)))

    def init(key):
        init_key, begin_key = jax.random.split(key)
        _, (_, _, features, clear, hidden) = begin(begin_key)
        params = network.init(init_key, hidden, features[None], clear[None])
        return TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)

    def env_step(state, env_params, carry, key):
        env_state, before, features, clear, hidden = carry
        act_key, step_key = jax.random.split(key)
        hidden, logits, value = state.apply_fn(state.params, hidden, features[None], clear[None])
        action = jax.random.categorical(act_key, logits[0])
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits[0]), action[:, None], -1)[:, 0]
        observation, env_state, reward, terminated, truncated, _ = step_envs(
            jax.random.split(step_key, num_envs), env_state, action, env_params
        )
        reward = reward.astype(jnp.float32)
        taken = Transition(features, clear, action, log_prob, value[0], reward)
        features = features_of(before, action, reward, terminated | truncated, observation)
        return (env_state, observation, features, jnp.zeros_like(clear), hidden), taken

    def advantages(taken, last_value):
        def backwards(carry, now):
            advantage, next_value = carry
            value, reward = now
            surprise = reward + ppo.discount * next_value - value
            advantage = surprise + ppo.discount * ppo.gae_lambda * advantage
            return (advantage, value), advantage

        start = (jnp.zeros_like(last_value), last_value)
        return jax.lax.scan(backwards, start, (taken.value, taken.reward), reverse=True)[1]

    def loss(params, apply, hidden, taken, advantage):
        _, logits, value = apply(params, hidden, taken.features, taken.clear)
        log_probs = jax.nn.log_softmax(logits)
        log_prob = jnp.take_along_axis(log_probs, taken.action[..., None], -1)[..., 0]
        target = advantage + taken.value
        normal = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = jnp.exp(log_prob - taken.log_prob)
        gain = jnp.minimum(ratio * normal, jnp.clip(ratio, 1 - region.clip, 1 + region.clip) * normal).mean()
        near = taken.value + jnp.clip(value - taken.value, -region.clip, region.clip)
        error = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2).mean()
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1).mean()
        return ppo.value_weight * error - gain - ppo.entropy * entropy

    def learn(state, hidden, taken, advantage, key):
        """An epoch: every environment once, in random minibatches."""
        order = jax.random.permutation(key, num_envs).reshape(region.minibatches, -1)

        def minibatch_step(state, chosen):
            along = jax.tree.map(lambda leaf: leaf[:, chosen], (taken, advantage))
            gradient = jax.grad(loss)(state.params, state.apply_fn, hidden[chosen], *along)
            return state.apply_gradients(grads=gradient), None

        return jax.lax.scan(minibatch_step, state, order)[0]

    def update(key, state):
        begin_key, windows_key = jax.random.split(key)
        env_params, carry = begin(begin_key)

        def one_window(carry, key):
            state, lived = carry
            hidden, (act_key, learn_key) = lived[-1], jax.random.split(key)
            steps = jax.random.split(act_key, window)
            lived, taken = jax.lax.scan(lambda lived, key: env_step(state, env_params, lived, key), lived, steps)
            _, _, features, clear, memory = lived
            last_value = state.apply_fn(state.params, memory, features[None], clear[None])[2][0]
            advantage = advantages(taken, last_value)
            epochs = jax.random.split(learn_key, region.epochs)
            state, _ = jax.lax.scan(
                lambda state, key: (learn(state, hidden, taken, advantage, key), None), state, epochs
            )
            return (state, lived), jnp.sum(taken.reward, axis=0).mean()

        (state, _), rewards = jax.lax.scan(one_window, (state, carry), jax.random.split(windows_key, trial // window))
        return state, jnp.sum(rewards)

    return init, update, lambda state: state.params


if __name__ == "__main__":
    serve_updates(build)
