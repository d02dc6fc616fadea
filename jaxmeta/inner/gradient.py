"""Adaptation by gradient steps: MAML and variants, Reptile, learned update rules, and plain learning from any start.

A lifetime starts at learned (or fresh) parameters; after each round the rollout goes into a replay buffer (or, for an
on-policy agent, is all there is to learn from) and K steps are taken on the agent's loss,

    params <- params + rule(d loss(params, slow) / d params),    slow <- slow + tau * (params - slow).

References: Finn, Abbeel and Levine (2017), MAML; Raghu et al. (2020), ANIL.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta.core.config import TRACED, AdaptationConfig, Config, Count, NonNegative
from jaxmeta.core.scans import Scan
from jaxmeta.core.trees import scale_down
from jaxmeta.core.types import Adapter, Agent, AgentLoss, Hyperparams, Key, Params, Percept, PyTree, Rollout
from jaxmeta.inner.forward_over_reverse import value_and_gradient
from jaxmeta.inner.optimizers import INNER_OPTIMIZERS, UpdateContext, UpdateRule
from jaxmeta.rl import hyperparameters, replay
from jaxmeta.rl.q_learning import QLearningConfig


class GradientConfig(Config, frozen=True, kw_only=True):
    """How a learner turns a rollout into new parameters."""

    num_steps: Count = 1
    """Gradient steps of an adaptation."""
    learning_rate: Annotated[NonNegative, TRACED] = 0.1
    """Step size."""
    max_gradient_norm: NonNegative = 0.0
    """Gradients are scaled down to this global norm; 0 leaves them as they are."""


class InnerOptimizerConfig(GradientConfig, frozen=True, kw_only=True):
    """The same by an optimizer that is chosen."""

    optimizer: Literal["sgd", "adam", "rmsprop"] = "sgd"
    """`sgd`, or `adam` or `rmsprop` where nothing differentiates through the adaptation."""


class Initialisation(struct.PyTreeNode):
    """The `meta` of gradient-based adaptation: where every task's learner starts from."""

    params: Params
    rule: PyTree
    """Weights of the update rule, or None where it has none."""
    hyperparams: Hyperparams
    """Not learned: its gradient is stopped."""


class InnerState(struct.PyTreeNode):
    """The `fast` of gradient-based adaptation."""

    params: Params
    target_params: Params
    """Target parameters, shapes as `params`."""
    rule: PyTree
    """State of the update rule."""
    age: jax.Array
    """[] int32, gradient steps taken."""
    hyperparams: Hyperparams
    replay: replay.Replay | None
    """None for an on-policy agent, which learns from each round right after it."""


def in_head(path: tuple) -> bool:
    """Whether a parameter belongs to the network's last layer."""
    return any(str(getattr(entry, "key", entry)).startswith("head") for entry in path)


def after_round(hyperparams: Hyperparams) -> Hyperparams:
    """Hyper-parameters of the next round, which explores less."""
    return hyperparams.replace(epsilon=hyperparams.epsilon * hyperparams.epsilon_decay)


def mixed(loss: AgentLoss) -> AgentLoss:
    """A loss of two batches of the same transitions, with targets of one step and of more, weighted by `mixing`.

    Of squared errors its gradient is the one that the targets' weighted mean has.
    """

    def mixed_loss(params: Params, target_params: Params, batch: tuple[PyTree, PyTree], hyperparams: Hyperparams):
        near, far = batch
        (near_loss, metrics), (far_loss, _) = (loss(params, target_params, one, hyperparams) for one in (near, far))
        return near_loss + hyperparams.mixing * (far_loss - near_loss), metrics

    return mixed_loss


class Variant(NamedTuple):
    """What sets one algorithm that adapts by gradient steps apart from another."""

    first_order: bool = False
    """Treat the inner gradients as constants (FOMAML)."""
    fresh: bool = False
    """Start every lifetime from parameters drawn anew instead of the learned ones (the baseline `scratch`)."""
    target_network: bool = True
    """Take targets from parameters that follow by `target_step_size`. Without, they come from the newest ones, as with
    a step size of 1, and nothing is spent on following."""
    adapts: Callable[[tuple], bool] = lambda path: True
    """Given a parameter's tree path, whether the inner loop changes it (ANIL: the head alone)."""
    scan: Scan = jax.lax.scan
    """How gradient steps follow one another, see `scans`."""


def gradient_steps(
    agent: Agent,
    lifetime: AdaptationConfig,
    config: GradientConfig,
    rule: UpdateRule = INNER_OPTIMIZERS["sgd"],
    variant: Variant = Variant(),
) -> Adapter:
    """Builds the adapter.

    Args:
      agent: what acts and has a loss.
      lifetime: the shape of a rollout, which the replay buffer stores.
      config: the inner loop.
      rule: how a gradient becomes new parameters; its weights are learned with the start.
      variant: what sets the algorithm apart.

    Returns:
      An `Adapter` with meta `Initialisation`, fast `InnerState` and no memory.
    """
    first_order, fresh, target_network, adapts, scan = variant
    of_values = agent.config if isinstance(agent.config, QLearningConfig) else None
    mixes = of_values is not None and of_values.mixed_targets
    # Targets from the newest parameters make the update's derivative more than a Hessian, so Q-learners gain nothing.
    derive = value_and_gradient if agent.on_policy else functools.partial(jax.value_and_grad, has_aux=True)
    loss_and_gradient = derive(mixed(agent.loss) if mixes else agent.loss)
    lifelong = lifetime.num_adaptations * config.num_steps

    def init(key: Key) -> Initialisation:
        params_key, rule_key = jax.random.split(key)
        params = agent.init(params_key)
        hyperparams = hyperparameters(agent.config, config.learning_rate)
        return Initialisation(params=params, rule=rule.init(rule_key, params), hyperparams=hyperparams)

    def reset(key: Key, meta: Initialisation, context: PyTree):
        del context
        params = agent.init(key) if fresh else meta.params
        buffer = None
        if of_values is not None:
            capacity = of_values.replay_capacity
            buffer = replay.empty(agent.spec, capacity, lifetime.rollout_length, lifetime.num_envs)
        fast = InnerState(
            params=params,
            target_params=params,
            rule=rule.init_state(params),
            age=jnp.zeros((), jnp.int32),
            hyperparams=jax.lax.stop_gradient(meta.hyperparams),
            replay=buffer,
        )
        return fast, None

    def act(noise: PyTree, meta: Initialisation, fast: InnerState, memory: None, percept: Percept):
        del meta
        action, extras = agent.act(noise, fast.params, percept, fast.hyperparams)
        return action, memory, extras

    def eval_policy(noise: PyTree, meta: Initialisation, fast: InnerState, memory: None, percept: Percept):
        del meta
        action, extras = agent.eval_policy(noise, fast.params, percept, fast.hyperparams)
        return action, memory, extras

    def adapted_part(gradient: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if adapts(path) else jnp.zeros_like(leaf), gradient
        )

    def remember(key: Key, fast: InnerState, rollout: Rollout):
        """The replay with the newest round, and what reads the batches of the gradient steps from it."""
        if of_values is None or fast.replay is None:
            newest = jax.lax.stop_gradient(rollout)
            return None, lambda nothing: newest, None
        buffer = replay.add(fast.replay, rollout)
        how = (config.num_steps, of_values.batch_size, fast.hyperparams.discount)
        read, batches = replay.batches(key, buffer, *how, of_values.n_step)
        if not mixes:
            return buffer, read, batches
        read_near, _ = replay.batches(key, buffer, *how, 1)
        return buffer, lambda index: (read_near(index), read(index)), batches

    def adapt(key: Key, meta: Initialisation, fast: InnerState, rollout: Rollout):
        hyperparams = fast.hyperparams
        buffer, read_batch, batches = remember(key, fast, rollout)

        def gradient_step(carry, index):
            params, target_params, state, age = carry
            batch = read_batch(index)
            targets = params if target_params is None else target_params
            (loss, metrics), gradient = loss_and_gradient(params, targets, batch, hyperparams)
            gradient = scale_down(adapted_part(gradient), config.max_gradient_norm)
            if first_order:
                gradient = jax.lax.stop_gradient(gradient)
            seen = UpdateContext(hyperparams.learning_rate, loss, age / lifelong)
            change, state = rule.update(meta.rule, gradient, state, params, seen)
            params = jax.tree.map(jnp.add, params, change)
            if target_params is not None:
                target_params = jax.tree.map(
                    lambda old, new: old + hyperparams.target_step_size * (new - old), target_params, params
                )
            return (params, target_params, state, age + 1), {"inner_loss": loss, **metrics}

        carry = (fast.params, fast.target_params if target_network else None, fast.rule, fast.age)
        (params, target_params, state, age), metrics = scan(gradient_step, carry, batches, config.num_steps)
        hyperparams = after_round(hyperparams)
        target_params = params if target_params is None else target_params
        fast = fast.replace(
            params=params, target_params=target_params, rule=state, age=age, hyperparams=hyperparams, replay=buffer
        )
        return fast, jax.tree.map(lambda leaf: leaf[-1], metrics)

    return Adapter(init, reset, act, eval_policy, adapt, agent.noise)
