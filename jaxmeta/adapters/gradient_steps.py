"""Adaptation by gradient steps: MAML, FOMAML, ANIL, Meta-SGD, Reptile, and plain learning from any start.

A lifetime starts at learned (or fresh) parameters; after each round the rollout goes into a replay buffer (or, for an
on-policy agent, is all there is to learn from) and K steps are taken on the agent's loss,

    params <- params - step_size * direction(d loss(params, slow) / d params),    slow <- slow + tau * (params - slow).

References: Finn, Abbeel and Levine (2017), MAML; Raghu et al. (2020), ANIL; Li et al. (2017), Meta-SGD.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxmeta import replay
from jaxmeta.adapters.forward_over_reverse import value_and_gradient
from jaxmeta.base import Adapter, Agent, Hypers, Key, Lifetime, Params, Percept, PyTree, Rollout, Spec
from jaxmeta.config import InnerConfig
from jaxmeta.trees import scale_down


class Start(struct.PyTreeNode):
    """The `meta` of gradient-based adaptation: where every task's learner starts from."""

    params: Params
    log_step_sizes: Params | None
    """Logarithm of a step size per parameter, shapes as `params`; None: the step size is `hypers.learning_rate`."""
    hypers: Hypers
    """Not learned: its gradient is stopped."""


class Learner(struct.PyTreeNode):
    """The `fast` of gradient-based adaptation."""

    params: Params
    slow: Params
    """Target parameters, shapes as `params`."""
    optimizer: optax.OptState
    hypers: Hypers
    replay: replay.Replay | None
    """None for an on-policy agent, which learns from each round right after it."""


def in_head(path: tuple) -> bool:
    """Whether a parameter belongs to the network's last layer."""
    return any(str(getattr(entry, "key", entry)).startswith("head") for entry in path)


def gradient_steps(
    agent: Agent,
    spec: Spec,
    lifetime: Lifetime,
    config: InnerConfig,
    hypers: Hypers,
    *,
    learned_step_sizes: bool = False,
    first_order: bool = False,
    fresh: bool = False,
    slow_targets: bool = True,
    adapts: Callable[[tuple], bool] = lambda path: True,
) -> Adapter:
    """Builds the adapter.

    Args:
      agent: what acts and has a loss.
      spec: shapes of observations and actions.
      lifetime: the shape of a round, which the replay buffer stores.
      config: the inner loop.
      hypers: where a fresh `meta` takes its hyper-parameters from.
      learned_step_sizes: one step size per parameter, learned with the start (Meta-SGD).
      first_order: treat the inner gradients as constants (FOMAML).
      fresh: start every lifetime from parameters drawn anew instead of the learned ones (the baseline `scratch`).
      slow_targets: take targets from parameters that follow by `hypers.target_step_size`. Without, they come from the
        newest ones, as with a step size of 1, and nothing is spent on following.
      adapts: given a parameter's tree path, whether the inner loop changes it (ANIL: the head alone).

    Returns:
      An `Adapter` with meta `Start`, fast `Learner` and no memory.
    """
    # Targets from the newest parameters make the update's derivative more than a Hessian, so Q-learners gain nothing.
    derive = value_and_gradient if agent.on_policy else functools.partial(jax.value_and_grad, has_aux=True)
    loss_and_gradient = derive(agent.loss)
    direction = optax.scale_by_adam() if config.inner_optimizer == "adam" else optax.identity()

    def init(key: Key) -> Start:
        params = agent.init(key)
        log_step_sizes = None
        if learned_step_sizes:
            log_step_sizes = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.log(hypers.learning_rate)), params)
        return Start(params=params, log_step_sizes=log_step_sizes, hypers=hypers)

    def begin(key: Key, meta: Start, context: PyTree):
        del context
        params = agent.init(key) if fresh else meta.params
        buffer = None if agent.on_policy else replay.empty(spec, config.replay_rounds, lifetime.steps, lifetime.envs)
        fast = Learner(
            params=params,
            slow=params,
            optimizer=direction.init(params),
            hypers=jax.lax.stop_gradient(meta.hypers),
            replay=buffer,
        )
        return fast, None

    def act(noise: PyTree, meta: Start, fast: Learner, memory: None, percept: Percept):
        del meta
        action, extras = agent.act(noise, fast.params, percept, fast.hypers)
        return action, memory, extras

    def exploit(noise: PyTree, meta: Start, fast: Learner, memory: None, percept: Percept):
        del meta
        action, extras = agent.exploit(noise, fast.params, percept, fast.hypers)
        return action, memory, extras

    def adapted_part(gradient: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if adapts(path) else jnp.zeros_like(leaf), gradient
        )

    def step_sizes(meta: Start, params: Params) -> Params:
        if meta.log_step_sizes is not None:
            return jax.tree.map(jnp.exp, meta.log_step_sizes)
        return jax.tree.map(lambda leaf: jax.lax.stop_gradient(meta.hypers.learning_rate), params)

    def remember(key: Key, fast: Learner, rollout: Rollout):
        """The replay with the newest round, and what reads the batches of the gradient steps from it."""
        if fast.replay is None:
            newest = jax.lax.stop_gradient(rollout)
            return None, lambda nothing: newest, None
        buffer = replay.add(fast.replay, rollout)
        steps, discount = config.inner_steps, fast.hypers.discount
        return buffer, *replay.batches(key, buffer, steps, config.batch_size, discount, config.n_step)

    def adapt(key: Key, meta: Start, fast: Learner, rollout: Rollout):
        sizes = step_sizes(meta, fast.params)
        hypers = fast.hypers
        buffer, read_batch, batches = remember(key, fast, rollout)

        def gradient_step(carry, index):
            params, slow, optimizer = carry
            batch = read_batch(index)
            targets = params if slow is None else slow
            (loss, metrics), gradient = loss_and_gradient(params, targets, batch, hypers)
            gradient = scale_down(adapted_part(gradient), config.max_inner_norm)
            if first_order:
                gradient = jax.lax.stop_gradient(gradient)
            update, optimizer = direction.update(gradient, optimizer, params)
            params = jax.tree.map(lambda leaf, size, change: leaf - size * change, params, sizes, update)
            if slow is not None:
                slow = jax.tree.map(lambda old, new: old + hypers.target_step_size * (new - old), slow, params)
            return (params, slow, optimizer), {"inner_loss": loss, **metrics}

        if config.remat:
            gradient_step = jax.checkpoint(gradient_step)
        carry = (fast.params, fast.slow if slow_targets else None, fast.optimizer)
        (params, slow, optimizer), metrics = jax.lax.scan(gradient_step, carry, batches, config.inner_steps)
        hypers = hypers.replace(epsilon=hypers.epsilon * hypers.epsilon_decay)
        slow = params if slow is None else slow
        fast = fast.replace(params=params, slow=slow, optimizer=optimizer, hypers=hypers, replay=buffer)
        return fast, jax.tree.map(lambda leaf: leaf[-1], metrics)

    return Adapter(init, begin, act, exploit, adapt, agent.noise)
