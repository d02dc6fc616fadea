"""A meta-step of MAML over DQN written by hand as one function: what `throughput.py` holds the engine against.

The same work at the same settings with the same random numbers, without agents, adapters, objectives or outer rules:
the network is three matrix products, the loops are spelled out, and whatever the settings leave unused is left out. It
serves DQN with double targets and squared loss, plain SGD in the inner loop on the whole replay, Monte-Carlo targets,
two or more lifetimes of a task and the policy-gradient outer loss after every round; `require_same_work` checks that.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta.algorithms.maml import MAMLConfig
from jaxmeta.algorithms.registry import configure
from jaxmeta.core.settings import settings_of
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import TaskDistribution
from jaxmeta.rl import DQNConfig

GradientOf = Callable[..., tuple[Any, Any]]
"""`gradient_of(key, params, env_params)`: the meta-gradient, not clipped, and what was drawn on the way."""

SAME_WORK = {
    "agent": "dqn",
    "agent.dueling": False,
    "agent.double": True,
    "agent.huber": 0.0,
    "agent.batch_size": 0,
    "agent.n_step": 0,
    "agent.target_step_size": 1.0,
    "inner.optimizer": "sgd",
    "objective.loss": "policy_gradient",
    "objective.scored": "every",
    "outer.remat": "none",
    "outer.tasks_per_group": 0,
}


def config_of(tasks: TaskDistribution, settings: Mapping[str, Any]) -> MAMLConfig:
    """The complete configuration of MAML for a family."""
    config = configure("maml", tasks, settings)
    assert isinstance(config, MAMLConfig)
    return config


def require_same_work(config: MAMLConfig, same_work: dict[str, Any]) -> None:
    """Refuses settings that a hand-written form does not serve."""
    settings = settings_of(config)
    for name, value in same_work.items():
        if settings[name] != value:
            raise SystemExit(f"{name} must be {value!r} for the hand-fused form, got {settings[name]!r}.")


def make_fused(gradient_of: GradientOf, config: MAMLConfig):
    """The function (key, params, optimizer state, env_params) -> (params, optimizer state), and the optimizer."""
    clip = optax.clip_by_global_norm(config.outer.max_gradient_norm)
    optimizer = optax.chain(clip, optax.adam(config.outer.learning_rate))

    def meta_step(key, params, optimizer_state, env_params):
        gradient, _ = gradient_of(key, params, env_params)
        changes, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, changes), optimizer_state

    return meta_step, optimizer


def make_gradient(tasks: TaskDistribution, config: MAMLConfig):
    """The function (key, params, env_params) -> (meta-gradient, actions).

    The gradient is not clipped. The actions, which the compiler drops where nobody asks for them, are those of the
    exploration, [tasks, lifetimes, rounds, steps, envs], and of the query episodes, [tasks, lifetimes, rounds, horizon,
    query_envs].
    """
    require_same_work(config, SAME_WORK)
    agent, inner, objective = config.agent, config.inner, config.objective
    assert isinstance(agent, DQNConfig), "as has been required"
    if agent.replay_capacity != config.adaptation.num_adaptations or len(agent.hidden) != 2:
        raise SystemExit("The hand-fused form must have a replay of all rounds and two hidden layers.")
    lives, queries = objective.lifetimes_per_task, objective.num_query_envs
    if lives < 2:
        raise SystemExit(f"objective.lifetimes_per_task must be at least 2 for the hand-fused form, got {lives}.")
    env, horizon, lifetime = tasks.env, tasks.horizon, config.adaptation.within(tasks.horizon)
    actions = spec_of(tasks).num_actions
    assert actions is not None, "the hand-fused form is for discrete actions"
    envs, steps, rounds = lifetime.num_envs, lifetime.rollout_length, lifetime.num_adaptations
    discount, temperature, stickiness = agent.discount, agent.temperature, agent.stickiness

    def action_values(net, observation):
        layers = net["params"]
        for name in ("torso_0", "torso_1"):
            observation = jax.nn.relu(observation @ layers[name]["kernel"] + layers[name]["bias"])
        return observation @ layers["head"]["kernel"] + layers["head"]["bias"]

    def exploring_logits(net, exploration, observation, previous_action, first, epsilon):
        repeated = jnp.arange(exploration.size) == previous_action[..., None]
        sticky = (stickiness * ~first)[..., None]
        drawn = jnp.log(sticky * repeated + (1 - sticky) * jax.nn.softmax(exploration))
        greedy = jax.lax.stop_gradient(jax.nn.log_softmax(action_values(net, observation) / temperature))
        return jnp.logaddexp(jnp.log1p(-epsilon) + greedy, jnp.log(epsilon) + drawn)

    def begin(key, env_params, count):
        observation, state = jax.vmap(env.reset, (0, None))(jax.random.split(key, count), env_params)
        nothing = jnp.zeros(count, jnp.int32)
        return state, observation, nothing, jnp.ones(count, bool)

    def play(key, env_params, start, count, length, logits_of):
        def step(carry, chance):
            noise, step_keys = chance
            state, observation, previous_action, first = carry
            logits = logits_of(observation, previous_action, first)
            action = jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)
            following, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
                step_keys, state, action, env_params
            )
            seen = (observation, previous_action, first, action, reward, terminated, truncated)
            return (state, following, action, terminated | truncated), (*seen, info["final_observation"])

        act_keys, step_keys = jax.random.split(key, (2, length, count))
        noise = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, (actions,))))(act_keys)
        return jax.lax.scan(step, start, (noise, step_keys))

    def transitions(taken):
        """What gradient steps read of a round, leaves [steps * envs, ...].

        Observation and action; of the rest of the episode the discounted reward, the weight of the value at its end and
        the observation there.
        """
        observation, _, _, action, reward, terminated, truncated, following = taken
        ends = (terminated | truncated).at[-1].set(True)

        def backwards(later, now):
            reward, end, terminated, following = now
            total = reward + jnp.where(end, 0.0, discount * later[0])
            weight = discount * jnp.where(end, ~terminated, later[1])
            last = jnp.where(end[:, None], following, later[2])
            return (total, weight, last), (total, weight, last)

        nothing = jnp.zeros(envs)
        start = (nothing, nothing, jnp.zeros_like(following[0]))
        rest = jax.lax.scan(backwards, start, (reward, ends, terminated, following), reverse=True)[1]
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (observation, action, *rest))

    def inner_loss(net, slow, experience):
        observation, action, total, weight, last = experience
        chosen = jnp.argmax(action_values(net, last), axis=-1)
        value = jnp.take_along_axis(action_values(slow, last), chosen[..., None], -1)[..., 0]
        q = jnp.take_along_axis(action_values(net, observation), action[..., None], -1)[..., 0]
        return 0.5 * jnp.mean((total + weight * value - q) ** 2)

    def one_life(key, params, env_params):
        begin_key, live_key = jax.random.split(key)
        where = begin(jax.random.split(begin_key)[1], env_params, envs)
        net, exploration = params["network"], params["exploration"]
        epsilon, lived, reports = jnp.float32(agent.epsilon), [], []
        for round_key in jax.random.split(live_key, rounds):
            rollout_key, _, score_key = jax.random.split(round_key, 3)
            fixed, logits = jax.lax.stop_gradient((net, exploration))

            def act(observation, previous_action, first, fixed=fixed, logits=logits, epsilon=epsilon):
                return exploring_logits(fixed, logits, observation, previous_action, first, epsilon)

            where, taken = play(rollout_key, env_params, where, envs, steps, act)
            explored = jax.nn.log_softmax(exploring_logits(net, exploration, taken[0], taken[1], taken[2], epsilon))
            explored = jnp.sum(jnp.take_along_axis(explored, taken[3][..., None], -1))
            lived.append(transitions(taken))
            experience = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *lived)

            def gradient_step(net, _, experience=experience):
                # With a target step size of 1 the slow parameters are the same ones, and derived through all the same.
                gradient = jax.grad(inner_loss)(net, net, experience)
                norm = jnp.sqrt(jnp.maximum(_squared_norm(gradient), inner.max_gradient_norm**2))
                scale = inner.learning_rate * (inner.max_gradient_norm / norm if inner.max_gradient_norm else 1.0)
                return jax.tree.map(lambda leaf, change: leaf - scale * change, net, gradient), None

            net, _ = jax.lax.scan(gradient_step, net, None, inner.num_steps)
            epsilon *= agent.epsilon_decay

            reset_key, query_key = jax.random.split(score_key)
            adapted = jax.lax.stop_gradient(net)

            def eval_policy(observation, *_, adapted=adapted):
                return action_values(adapted, observation) / temperature

            fresh = begin(reset_key, env_params, queries)
            _, query = play(query_key, env_params, fresh, queries, horizon, eval_policy)
            done = query[5] | query[6]
            score = policy_gradient(net, query[0], query[3], query[4], done)
            episode = jnp.sum(query[4] * (jnp.cumsum(done, axis=0) - done == 0), axis=0)
            reports.append((score, explored, jnp.mean(episode), (taken[3], query[3])))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *reports)

    def policy_gradient(net, observation, action, reward, done):
        def backwards(later, now):
            total = now[0] + objective.outer_discount * ~now[1] * later
            return total, total

        returns = jax.lax.scan(backwards, jnp.zeros(queries), (reward, done), reverse=True)[1]
        advantage = returns - (jnp.sum(returns, axis=1, keepdims=True) - returns) / (queries - 1)
        log_probs = jax.nn.log_softmax(action_values(net, observation) / temperature)
        chosen = jnp.take_along_axis(log_probs, action[..., None], -1)[..., 0]
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return horizon * (jnp.mean(-chosen * advantage) - objective.entropy * jnp.mean(entropy))

    def task_loss(params, key, env_params):
        keys = jax.random.split(jax.random.split(key)[1], lives)
        scores, explored, episodes, actions = jax.vmap(one_life, (0, None, None))(keys, params, env_params)
        following = jnp.cumsum((episodes / rounds)[:, ::-1], axis=1)[:, ::-1]
        advantage = following - (jnp.sum(following, axis=0) - following) / (lives - 1)
        credit = jnp.mean(jnp.sum(explored * jax.lax.stop_gradient(advantage), axis=1))
        return jnp.mean(scores) - credit, actions

    def gradient_of(key, params, env_params):
        keys = jax.random.split(key, config.outer.tasks_per_batch)
        gradients, actions = jax.vmap(jax.grad(task_loss, has_aux=True), (None, 0, 0))(params, keys, env_params)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients), actions

    return gradient_of


def _squared_norm(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))
