"""Adaptation by gradient steps: MAML and its kin, Reptile, learned update rules, and plain learning from any start.

A lifetime starts at learned (or fresh) parameters; after each round the rollout goes into a replay buffer (or, for an
on-policy agent, is all there is to learn from) and K steps are taken on the agent's loss,

    params <- params + rule(d loss(params, slow) / d params),    slow <- slow + tau * (params - slow).

References: Finn, Abbeel and Levine (2017), MAML; Raghu et al. (2020), ANIL.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta.core.config import InnerConfig
from jaxmeta.core.scans import Scan
from jaxmeta.core.trees import scale_down
from jaxmeta.core.types import Adapter, Agent, AgentLoss, Hypers, Key, Lifetime, Params, Percept, PyTree, Rollout, Spec
from jaxmeta.inner.forward_over_reverse import value_and_gradient
from jaxmeta.inner.optimizers import BY_HAND, Seen, UpdateRule
from jaxmeta.rl import replay


class Start(struct.PyTreeNode):
    """The `meta` of gradient-based adaptation: where every task's learner starts from."""

    params: Params
    rule: PyTree
    """Weights of the update rule, or None where it has none."""
    hypers: Hypers
    """Not learned: its gradient is stopped."""


class Learner(struct.PyTreeNode):
    """The `fast` of gradient-based adaptation."""

    params: Params
    slow: Params
    """Target parameters, shapes as `params`."""
    rule: PyTree
    """State of the update rule."""
    age: jax.Array
    """[] int32, gradient steps taken."""
    hypers: Hypers
    replay: replay.Replay | None
    """None for an on-policy agent, which learns from each round right after it."""


def in_head(path: tuple) -> bool:
    """Whether a parameter belongs to the network's last layer."""
    return any(str(getattr(entry, "key", entry)).startswith("head") for entry in path)


def after_round(hypers: Hypers) -> Hypers:
    """Hyper-parameters of the next round, which explores less."""
    return hypers.replace(epsilon=hypers.epsilon * hypers.epsilon_decay)


def mixed(loss: AgentLoss) -> AgentLoss:
    """A loss of two batches of the same transitions, with targets of one step and of more, weighted by `mixing`.

    Of squared errors its gradient is the one that the targets' weighted mean has.
    """

    def mixed_loss(params: Params, slow: Params, batch: tuple[PyTree, PyTree], hypers: Hypers):
        near, far = batch
        (near_loss, metrics), (far_loss, _) = (loss(params, slow, one, hypers) for one in (near, far))
        return near_loss + hypers.mixing * (far_loss - near_loss), metrics

    return mixed_loss


def gradient_steps(
    agent: Agent,
    spec: Spec,
    lifetime: Lifetime,
    config: InnerConfig,
    hypers: Hypers,
    *,
    rule: UpdateRule = BY_HAND["sgd"],
    first_order: bool = False,
    fresh: bool = False,
    slow_targets: bool = True,
    adapts: Callable[[tuple], bool] = lambda path: True,
    scan: Scan = jax.lax.scan,
) -> Adapter:
    """Builds the adapter.

    Args:
      agent: what acts and has a loss.
      spec: shapes of observations and actions.
      lifetime: the shape of a round, which the replay buffer stores.
      config: the inner loop.
      hypers: where a fresh `meta` takes its hyper-parameters from.
      rule: how a gradient becomes new parameters; its weights are learned with the start.
      first_order: treat the inner gradients as constants (FOMAML).
      fresh: start every lifetime from parameters drawn anew instead of the learned ones (the baseline `scratch`).
      slow_targets: take targets from parameters that follow by `hypers.target_step_size`. Without, they come from the
        newest ones, as with a step size of 1, and nothing is spent on following.
      adapts: given a parameter's tree path, whether the inner loop changes it (ANIL: the head alone).
      scan: how gradient steps follow one another, see `scans`.

    Returns:
      An `Adapter` with meta `Start`, fast `Learner` and no memory.
    """
    # Targets from the newest parameters make the update's derivative more than a Hessian, so Q-learners gain nothing.
    derive = value_and_gradient if agent.on_policy else functools.partial(jax.value_and_grad, has_aux=True)
    loss_and_gradient = derive(mixed(agent.loss) if not agent.on_policy and config.mixed_targets else agent.loss)
    lifelong = lifetime.rounds * config.inner_steps

    def init(key: Key) -> Start:
        params_key, rule_key = jax.random.split(key)
        params = agent.init(params_key)
        return Start(params=params, rule=rule.init(rule_key, params), hypers=hypers)

    def begin(key: Key, meta: Start, context: PyTree):
        del context
        params = agent.init(key) if fresh else meta.params
        buffer = None if agent.on_policy else replay.empty(spec, config.replay_rounds, lifetime.steps, lifetime.envs)
        fast = Learner(
            params=params,
            slow=params,
            rule=rule.begin(params),
            age=jnp.zeros((), jnp.int32),
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

    def remember(key: Key, fast: Learner, rollout: Rollout):
        """The replay with the newest round, and what reads the batches of the gradient steps from it."""
        if fast.replay is None:
            newest = jax.lax.stop_gradient(rollout)
            return None, lambda nothing: newest, None
        buffer = replay.add(fast.replay, rollout)
        steps, discount = config.inner_steps, fast.hypers.discount
        read, batches = replay.batches(key, buffer, steps, config.batch_size, discount, config.n_step)
        if not config.mixed_targets:
            return buffer, read, batches
        read_near, _ = replay.batches(key, buffer, steps, config.batch_size, discount, 1)
        return buffer, lambda index: (read_near(index), read(index)), batches

    def adapt(key: Key, meta: Start, fast: Learner, rollout: Rollout):
        hypers = fast.hypers
        buffer, read_batch, batches = remember(key, fast, rollout)

        def gradient_step(carry, index):
            params, slow, state, age = carry
            batch = read_batch(index)
            targets = params if slow is None else slow
            (loss, metrics), gradient = loss_and_gradient(params, targets, batch, hypers)
            gradient = scale_down(adapted_part(gradient), config.max_inner_norm)
            if first_order:
                gradient = jax.lax.stop_gradient(gradient)
            seen = Seen(hypers.learning_rate, loss, age / lifelong)
            change, state = rule.update(meta.rule, gradient, state, params, seen)
            params = jax.tree.map(jnp.add, params, change)
            if slow is not None:
                slow = jax.tree.map(lambda old, new: old + hypers.target_step_size * (new - old), slow, params)
            return (params, slow, state, age + 1), {"inner_loss": loss, **metrics}

        carry = (fast.params, fast.slow if slow_targets else None, fast.rule, fast.age)
        (params, slow, state, age), metrics = scan(gradient_step, carry, batches, config.inner_steps)
        hypers = after_round(hypers)
        slow = params if slow is None else slow
        fast = fast.replace(params=params, slow=slow, rule=state, age=age, hypers=hypers, replay=buffer)
        return fast, jax.tree.map(lambda leaf: leaf[-1], metrics)

    return Adapter(init, begin, act, exploit, adapt, agent.noise)
