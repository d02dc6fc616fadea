"""A learned map from the Q-parameters of known tasks to those of a new one.

    theta_i' = W theta,        W = f(e_i, e),        theta = sum_j a_ij theta_j,        e = sum_j a_ij e_j,

where theta_j are the parameters of the sources, kept in a bank, e_j their task embeddings, W one of `parameter_maps`,
and a_ij, which sum to 1, weight the sources: the nearest, a random one, all equally, or by attention over the bank. Of
one source it is W_ij theta_j. With the map `Identity` these are plain copies, the control of a learned map.

A task embedding is the description of a task, for learners declared as privileged, or an encoding of the task's
transitions so far.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta.core.config import Config, Count, Natural, NonNegative
from jaxmeta.core.trees import scale_down
from jaxmeta.core.types import (
    Agent,
    Hyperparams,
    Key,
    Metrics,
    Params,
    Percept,
    PyTree,
    Spec,
    TaskDistribution,
    sample_tasks,
)
from jaxmeta.inner.generated import Source
from jaxmeta.inner.gradient import Initialisation, InnerState
from jaxmeta.nets.encoders import SetEncoder
from jaxmeta.nets.layers import dense
from jaxmeta.rl.q_learning import QLearningConfig
from jaxmeta.rl.replay import Replay, batches, elements_of


class BankLossConfig(Config, frozen=True, kw_only=True):
    """What a map is held to, from task to task of the bank."""

    distillation: NonNegative = 1.0
    """Weight of the squared distance to the action values of trained sources."""
    beta: NonNegative = 0.0
    """Weight of the squared distance to the parameters of trained sources."""
    td: NonNegative = 0.0
    """Weight of the agent's loss after `td_steps` gradient steps."""
    td_steps: Natural = 1
    """Gradient steps before the agent's loss is taken, where `td` is above 0."""
    bank_batch: Count = 64
    """Transitions of each source that the losses are estimated from."""


class Bank(struct.PyTreeNode):
    """What is known of the sources, leaves [S, ...]."""

    network: Params
    """Their Q-networks' parameters."""
    description: jax.Array
    """[S, D] float32."""
    replay: Replay | None
    """What newcomers have seen in their tasks, the latest rounds; None where representations are described."""


class Weights(struct.PyTreeNode):
    """What is learned."""

    map: PyTree
    attention: PyTree
    """Of what reads the bank; None unless it is read by attention."""
    encoder: PyTree
    """Of what infers representations; None where they are described."""


class Mapping(struct.PyTreeNode):
    """The `meta`: a map, and its bank of source parameters."""

    weights: Weights
    bank: Bank
    start: Initialisation
    """The start that all sources share, and the hyper-parameters of a new task's learner."""


class Attention(nn.Module):
    """Scores of sources for a target.

    Attributes:
      width: numbers that are compared.
    """

    width: int

    @nn.compact
    def __call__(self, target: jax.Array, sources: jax.Array) -> jax.Array:
        """Maps representations, [D] and [S, D] float32, to scores, [S] float32."""
        query, keys = dense(self.width, name="query")(target), dense(self.width, name="key")(sources)
        return keys @ query / jnp.sqrt(self.width)


class ParameterMap(NamedTuple):
    """How parameters are mapped."""

    source: Source
    """What generates a new task's parameters."""
    infer: Callable[[Mapping, Replay], jax.Array]
    """`infer(meta, replay)`: the representation of a task by its transitions, [D] float32."""
    represent: Callable[[Mapping], jax.Array]
    """`represent(meta)`: representations of the sources, [S, D] float32."""
    apply: Callable[[Mapping, jax.Array, jax.Array, Params], Params]
    """`apply(meta, target, source, network)`: W theta, of two representations [D] and a source's parameters theta."""
    carry: Callable[[Mapping, jax.Array, jax.Array, jax.Array], Params]
    """`carry(meta, target, sources, allowed)`: the parameters for a target's representation [D], of those sources, with
    representations [S, D], that are allowed, [S] bool."""


def mapping(
    spec: Spec, map_of: nn.Module, reads: str, sources: int, description: int, encoder: SetEncoder | None, width: int
) -> ParameterMap:
    """Generates a new task's parameters from those of other tasks.

    Args:
      spec: shapes of observations and actions.
      map_of: one of `maps`.
      reads: which sources: the `nearest`, a `random` one, the `average` of all, or what `attention` says. Sources are
        in no order, so the random one is the first.
      sources: S, tasks of the bank.
      description: D, numbers of a task's description.
      encoder: infers representations; None: a task's description, which is its context, is its representation.
      width: numbers that attention compares.
    """
    attention = Attention(width)

    def init(key: Key, start: Initialisation, empty: Replay) -> Mapping:
        map_key, attention_key, encoder_key = jax.random.split(key, 3)

        def for_each(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (sources, *jnp.shape(leaf))), tree)

        bank = Bank(
            network=for_each(start.params["network"]),
            description=jnp.zeros((sources, description)),
            replay=None if encoder is None else for_each(empty),
        )
        nothing = jnp.zeros(description if encoder is None else encoder.width)
        weights = Weights(
            map=map_of.init(map_key, jnp.concatenate([nothing, nothing]), start.params["network"]),
            attention=attention.init(attention_key, nothing, nothing[None]) if reads == "attention" else None,
            encoder=None if encoder is None else encoder.init(encoder_key, *elements_of(spec, empty)),
        )
        return Mapping(weights, bank, start)

    def infer(meta: Mapping, buffer: Replay) -> jax.Array:
        assert encoder is not None, "representations are described"
        return jnp.asarray(encoder.apply(meta.weights.encoder, *elements_of(spec, buffer)))

    def represent(meta: Mapping) -> jax.Array:
        if meta.bank.replay is None:
            return meta.bank.description
        return jax.vmap(infer, (None, 0))(meta, meta.bank.replay)

    def apply(meta: Mapping, target: jax.Array, source: jax.Array, network: Params) -> Params:
        return map_of.apply(meta.weights.map, jnp.concatenate([target, source]), network)

    def shares_of(meta: Mapping, target: jax.Array, sources: jax.Array, allowed: jax.Array) -> jax.Array:
        if reads == "attention":
            scores = jnp.asarray(attention.apply(meta.weights.attention, target, sources))
            return jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf))
        if reads == "average":
            return allowed / jnp.sum(allowed)
        distance = jnp.sum((sources - target) ** 2, axis=1) if reads == "nearest" else jnp.arange(len(sources))
        return jax.nn.one_hot(jnp.argmin(jnp.where(allowed, distance, jnp.inf)), len(sources))

    def carry(meta: Mapping, target: jax.Array, sources: jax.Array, allowed: jax.Array) -> Params:
        shares = shares_of(meta, target, sources, allowed)
        network = jax.tree.map(lambda leaf: jnp.tensordot(shares, leaf, 1), meta.bank.network)
        return apply(meta, target, shares @ sources, network)

    def generate(meta: Mapping, context: PyTree, buffer: Replay) -> Params:
        target = context if encoder is None else infer(meta, buffer)
        network = carry(meta, target, represent(meta), jnp.ones(sources, bool))
        return {**meta.start.params, "network": network}

    return ParameterMap(Source(init, generate), infer, represent, apply, carry)


def some_rounds(key: Key, buffer: Replay) -> Replay:
    """A buffer of so many rounds of another, from none to all, one number as likely as the other.

    That is what is known of a task at its start, after its first round, and so on.
    """
    capacity = buffer.rollouts.reward.shape[0]
    return buffer.replace(written=jax.random.randint(key, (), 0, jnp.minimum(buffer.written, capacity) + 1))


def bank_loss(
    parameter_map: ParameterMap, agent: Agent, config: BankLossConfig, limit: float, reads_one: bool
) -> Callable[[Key, Mapping, InnerState], tuple[jax.Array, Metrics]]:
    """The error of mapping each source's parameters from those of the others.

        mean_i  distillation * |Q(theta_i') - Q(theta_i)|^2 + beta * mean_j |W_ij theta_j - theta_i|^2 / P
                + td * L_i(theta_i' after K gradient steps)

    The first is a mean over transitions of task i and over actions, the second over the P parameters, and the third the
    agent's loss with the targets of the trained theta_i. The trained theta_i is held constant throughout. Were the
    second held against theta_i' itself, it would be zero by definition.

    One other source is drawn for each target where one is read, all others are read where all are.

    Args:
      parameter_map: as `mapping` makes it.
      agent: of the sources; it has action values and learns from a replay.
      config: the weights of the three terms, K as `td_steps`, and transitions of a batch as `bank_batch`.
      limit: of the norm of the K gradients.
      reads_one: whether one source is read, or all.

    Returns:
      `loss(key, meta, sources)`, of `sources` with leaves [S, ...]: the value, [] float32, and as metrics the terms
      before they are weighted, means over sources: `distillation`, and `gap` and `td` where these have a weight.
    """
    of_values = agent.config
    assert isinstance(of_values, QLearningConfig), "an agent without action values"

    def action_values(params: Params, observation: PyTree, hyperparams: Hyperparams) -> jax.Array:
        noise = agent.noise(jax.random.key(0))  # values are needed, not an action
        nothing = jnp.zeros((), jnp.int32)
        percept = Percept(observation, nothing, jnp.zeros(()), jnp.zeros((), bool))
        return agent.eval_policy(noise, params, percept, hyperparams)[1]["q"]

    def stepped(
        params: Params, target_params: Params, read: Callable, indices: jax.Array, hyperparams: Hyperparams
    ) -> Params:
        """After a gradient step on each batch; the steps are differentiated."""
        for index in indices:
            gradient = scale_down(
                jax.grad(agent.loss, has_aux=True)(params, target_params, read(index), hyperparams)[0], limit
            )
            params = jax.tree.map(lambda leaf, change: leaf - hyperparams.learning_rate * change, params, gradient)
        return params

    def loss(key: Key, meta: Mapping, sources: InnerState):
        representations, hyperparams = parameter_map.represent(meta), meta.start.hyperparams
        count = len(representations)

        def of_target(key: Key, index: jax.Array, fast: InnerState):
            assert fast.replay is not None, "an agent without a replay"
            rounds_key, source_key, batch_key = jax.random.split(key, 3)
            trained = jax.lax.stop_gradient(fast.params)
            others = jnp.arange(count) != index
            target = representations[index]
            if meta.bank.replay is not None:
                known = jax.tree.map(lambda leaf: leaf[index], meta.bank.replay)
                target = parameter_map.infer(meta, some_rounds(rounds_key, known))
            if reads_one:
                others &= jnp.arange(count) == (index + jax.random.randint(source_key, (), 1, count)) % count
            network = parameter_map.carry(meta, target, representations, others)
            params = {**meta.start.params, "network": network}

            read, indices = batches(
                batch_key, fast.replay, config.td_steps + 1, config.bank_batch, hyperparams.discount, of_values.n_step
            )
            assert indices is not None, "a batch of the whole replay"
            seen = read(indices[-1])
            values = jax.vmap(action_values, (None, 0, None))
            error = values(params, seen.observation, hyperparams) - values(trained, seen.observation, hyperparams)
            metrics = {"distillation": jnp.mean(error**2)}
            value = config.distillation * metrics["distillation"]
            if config.beta:
                mapped = jax.vmap(parameter_map.apply, (None, None, 0, 0))(
                    meta, target, representations, meta.bank.network
                )
                gaps = jax.tree.map(lambda one, other: one - other, mapped, trained["network"])
                sizes = sum(jnp.sum(leaf**2, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(gaps))
                numbers = sum(leaf.size for leaf in jax.tree.leaves(trained["network"]))
                metrics["gap"] = jnp.sum(sizes * others) / jnp.sum(others) / numbers
                value += config.beta * metrics["gap"]
            if config.td:
                fitted = stepped(params, trained, read, indices[:-1], hyperparams)
                metrics["td"] = agent.loss(fitted, trained, seen, hyperparams)[0]
                value += config.td * metrics["td"]
            return value, metrics

        keys = jax.random.split(key, count)
        values, metrics = jax.vmap(of_target)(keys, jnp.arange(count), sources)
        return jnp.mean(values), jax.tree.map(jnp.mean, metrics)

    return loss


def bank_of(bank: Bank, sources: InnerState, description: jax.Array) -> Bank:
    """The bank with what sources have become, leaves [S, ...]."""
    return bank.replace(network=sources.params["network"], description=description)


CANDIDATES = 16
"""Tasks that are drawn for each source, of which those are taken that lie farthest from one another."""


def drawn_apart(key: Key, tasks: TaskDistribution, count: int, described: bool) -> PyTree:
    """Tasks to learn from, leaves [count, ...]; where they are described, such that no two are alike if that can be."""
    if not described:
        return sample_tasks(key, tasks, "train", count)
    env_params = sample_tasks(key, tasks, "train", CANDIDATES * count)
    description = jax.vmap(tasks.describe)(env_params)
    far = jnp.full(len(description), jnp.inf)
    chosen = []
    for _ in range(count):
        chosen.append(jnp.argmax(far))
        far = jnp.minimum(far, jnp.sum((description - description[chosen[-1]]) ** 2, axis=1))
    return jax.tree.map(lambda leaf: leaf[jnp.stack(chosen)], env_params)
