"""A meta-step of MAML over policy gradients written by hand: what `throughput.py` holds the engine's against.

The same work at the same settings with the same random numbers, on 2-D navigation with velocities for actions, without
agents, adapters, objectives or outer rules. It serves one round of one gradient step, DiCE's surrogate, a linear
baseline, and the policy-gradient outer loss of one lifetime; `require_same_work` checks that.

With a single gradient step the meta-gradient needs no derivative of a derivative written as such. Where theta' = theta
- rate * g(theta), it is (1 - rate * H) d, with d the outer gradient at theta' and H the inner loss's second derivative,
which is symmetric: H d is the derivative of g along d. Linearising g gives both, forward over reverse.
"""

import fused
import jax
import jax.numpy as jnp

from jaxmeta.algorithms.maml import MAMLConfig
from jaxmeta.core.types import TaskDistribution
from jaxmeta.rl import ActorCriticConfig
from jaxmeta.rl.advantages import RIDGE
from jaxmeta_envs.point_navigation import SPEED

SETTINGS = {
    "adaptation.num_envs": 20,
    "adaptation.num_adaptations": 1,
    "agent": "actor_critic",
    "agent.surrogate": "dice",
    "inner.max_gradient_norm": 0.0,
    "objective.num_query_envs": 20,
    "objective.scored": "every",
    "outer.tasks_per_batch": 20,
    "outer.tasks_per_group": 1,
}
"""Those of Finn, Abbeel and Levine (2017) for 2-D navigation, 20 trajectories before and after a step in each of 20
tasks; adapted one at a time, since a task's activations then stay in a CPU's cache."""

SAME_WORK = {
    "adaptation.num_adaptations": 1,
    "agent": "actor_critic",
    "agent.surrogate": "dice",
    "agent.baseline": "linear",
    "agent.normalised": True,
    "agent.inner_entropy": 0.0,
    "inner.optimizer": "sgd",
    "inner.max_gradient_norm": 0.0,
    "inner.num_steps": 1,
    "objective.lifetimes_per_task": 1,
    "objective.loss": "policy_gradient",
    "objective.scored": "every",
}


def make_gradient(tasks: TaskDistribution, config: MAMLConfig):
    """The function (key, params, env_params) -> (meta-gradient, draws).

    The gradient is not clipped. The draws, which the compiler drops where nobody asks for them, are the noise of the
    actions before and after adaptation, [tasks, steps, envs, 2] and [tasks, horizon, query_envs, 2] float32, in
    standard deviations.
    """
    fused.require_same_work(config, SAME_WORK)
    agent, objective, outer = config.agent, config.objective, config.outer
    assert isinstance(agent, ActorCriticConfig), "as has been required"
    env, horizon, lifetime = tasks.env, tasks.horizon, config.adaptation.within(tasks.horizon)
    envs, steps, queries = lifetime.num_envs, lifetime.rollout_length, objective.num_query_envs
    discount, rate, group = agent.discount, config.inner.learning_rate, outer.tasks_per_group or outer.tasks_per_batch

    def policy(params, position):
        """Mean, in units of `SPEED`, and logarithm of the standard deviation."""
        layers = params["policy"]["params"]
        for name in ("torso_0", "torso_1"):
            position = jnp.tanh(position @ layers[name]["kernel"] + layers[name]["bias"])
        return position @ layers["head"]["kernel"] + layers["head"]["bias"], layers["head_log_scale"]

    def log_prob(params, position, action):
        mean, log_scale = policy(params, position)
        distance = (action / SPEED - mean) * jnp.exp(-log_scale)
        return -jnp.sum(0.5 * distance**2 + log_scale + jnp.log(SPEED) + 0.5 * jnp.log(2 * jnp.pi), axis=-1)

    def play(key, params, env_params, envs, steps):
        """Positions, noise, actions, rewards, and how episodes ended, leaves [steps, envs, ...]."""
        keys = jax.random.split(key, (2, steps, envs))
        noise = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (2,))))(keys[0])

        def step(carry, now):
            state, position = carry
            key, noise = now
            mean, log_scale = policy(params, position)
            action = (mean + jnp.exp(log_scale) * noise) * SPEED
            following, state, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(
                key, state, action, env_params
            )
            return (state, following), (position, noise, action, reward, terminated, truncated)

        position, state = jax.vmap(env.reset, (0, None))(keys[1, 0], env_params)  # draws nothing
        return jax.lax.scan(step, (state, position), (keys[1], noise))[1]

    def to_go(reward, weight):
        def backwards(later, now):
            total = now[0] + now[1] * later
            return total, total

        return jax.lax.scan(backwards, jnp.zeros_like(reward[0]), (reward, weight), reverse=True)[1]

    def advantages(position, reward, ended, start):
        """Normalised, against a linear baseline in position and time, fitted to the returns."""
        steps = len(reward)
        time = (2 * (jnp.arange(steps)[:, None] - start) / steps - 1)[..., None]
        curves = [jnp.ones_like(time), time, 1.5 * time**2 - 0.5, 2.5 * time**3 - 1.5 * time]
        regressors = jnp.concatenate([position, position**2, *curves], axis=-1)
        rows, going_on = regressors.reshape(-1, regressors.shape[-1]), discount * ~ended
        normal = rows.T @ rows + RIDGE * len(rows) * jnp.eye(rows.shape[1])
        weights = jax.scipy.linalg.solve(normal, rows.T @ to_go(reward, going_on).ravel(), assume_a="pos")
        value = regressors @ weights
        surprise = reward - value + going_on * jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
        advantage = to_go(surprise, agent.gae_lambda * going_on)
        return (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)

    def inner_gradient(params, played):
        """The inner loss's gradient as a function of the parameters, for a round that `params` played."""
        position, _, action, reward, terminated, truncated = played
        ended = terminated | truncated
        first = jnp.concatenate([jnp.ones_like(ended[:1]), ended[:-1]])
        start = jax.lax.cummax(jnp.where(first, jnp.arange(len(first))[:, None], 0))
        advantage = advantages(position, reward, ended, start)
        old = log_prob(params, position, action)

        def loss(params):
            log_ratio = log_prob(params, position, action) - old
            before = jnp.cumsum(log_ratio, axis=0) - log_ratio
            before -= jnp.take_along_axis(before, start, axis=0)
            return -jnp.mean(jnp.exp(before) * jnp.expm1(log_ratio) * advantage)

        return jax.grad(loss)

    def outer_gradient(key, params, env_params):
        """REINFORCE with a leave-one-out baseline at the adapted parameters, and the noise of the query episodes."""
        position, noise, action, reward, terminated, truncated = play(key, params, env_params, queries, horizon)
        returns = to_go(reward, objective.outer_discount * ~(terminated | truncated))
        advantage = returns - (jnp.sum(returns, axis=1, keepdims=True) - returns) / (queries - 1)

        def loss(params):
            entropy = jnp.sum(params["policy"]["params"]["head_log_scale"])  # and a constant
            return -horizon * (jnp.mean(log_prob(params, position, action) * advantage) + objective.entropy * entropy)

        return jax.grad(loss)(params), noise

    def task_gradient(key, params, env_params, played):
        gradient, along = jax.linearize(inner_gradient(params, played), params)
        adapted = jax.tree.map(lambda leaf, change: leaf - rate * change, params, gradient)
        outer, query_noise = outer_gradient(key, adapted, env_params)
        return jax.tree.map(lambda leaf, change: leaf - rate * change, outer, along(outer)), query_noise

    def keys_of(key):
        """Keys of a task's round and of its query episodes."""
        life_key = jax.random.split(jax.random.split(key)[1], 1)[0]
        round_key = jax.random.split(jax.random.split(life_key, 3)[1], 1)[0]
        rollout_key, _, score_key = jax.random.split(round_key, 3)
        return rollout_key, jax.random.split(score_key)[1]

    def gradient_of(key, params, env_params):
        round_keys, query_keys = jax.vmap(keys_of)(jax.random.split(key, outer.tasks_per_batch))
        # All tasks at once: they still share their parameters.
        played = jax.vmap(lambda key, task: play(key, params, task, envs, steps))(round_keys, env_params)
        gradients, query_noise = jax.lax.map(
            lambda task: task_gradient(task[0], params, *task[1:]), (query_keys, env_params, played), batch_size=group
        )
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients), (played[1], query_noise)

    return gradient_of
