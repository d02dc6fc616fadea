"""A policy over Q-learning's hyper-parameters, which sets them before every rollout of a lifetime.

It wraps gradient steps, which find in `fast.hyperparams` what the policy has put there. Step size, discount, the share
of n-step targets and the target step size reach the loss by multiplication, and a derivative passes. Epsilon only
reaches the data: no derivative passes, and it is learned by evolution strategies alone. Nothing is compiled anew when a
value changes.

References: Xu, van Hasselt and Silver (2018), meta-gradients; Parker-Holder et al. (2022) for the field.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta.core.config import Config, Count
from jaxmeta.core.types import Adapter, Hyperparams, Key, Metrics, Percept, PyTree, Rollout
from jaxmeta.inner.gradient import Initialisation, InnerState
from jaxmeta.nets.networks import WHOLE, Setter

SET = ("learning_rate", "discount", "epsilon", "target_step_size", "mixing")
"""The fields of `Hyperparams` that a policy sets, in the order of its outputs."""
POSITIVE = ("learning_rate",)
"""Those that are above 0; the others are from 0 to 1."""
NEAREST = 1e-3
"""How near to 0 and 1 a share may start: at the ends themselves nothing could move it."""
STRUCTURE_UNIT = 4.0
"""How far one of the policy's numbers moves the edge of a layer."""
DECAYS = (0.5, 0.9)
"""Of the averages of reward and error."""
SMALLEST = 1e-6
FORMS = ("online", "schedule", "static", "constant")


class PolicyConfig(Config, frozen=True, kw_only=True):
    """A policy that sets Q-learning's hyper-parameters."""

    form: Literal["online", "schedule", "static", "constant"] = "online"
    """What it sees: `online`, how learning goes; `schedule`, how much of the lifetime has passed; `static`, a
    description of the task, which is privileged; or `constant`, nothing."""
    width: Count = 16
    """Units of its hidden layer."""


class Statistics(struct.PyTreeNode):
    """What a learner knows of how it learns."""

    rounds: jax.Array
    """[] int32, rounds so far."""
    reward: jax.Array
    """[2] float32, averages of the mean reward of a step, over a few rounds and over more."""
    error: jax.Array
    """[2] float32, the same of the absolute error of the action values."""
    largest: jax.Array
    """[] float32, the largest mean reward of a round so far, in absolute terms."""


class HyperPolicyState(struct.PyTreeNode):
    """The `fast` of a learner whose hyper-parameters are set for it."""

    learner: InnerState
    context: PyTree
    """What it may see of its task."""
    statistics: Statistics


class HyperPolicy(struct.PyTreeNode):
    """The `meta`: the policy, and what it governs."""

    policy: PyTree
    """Weights."""
    start: Initialisation
    """Of the learner; its `hyperparams` are what the policy sets at first."""


class View(NamedTuple):
    """What a form of policy sees."""

    size: int
    """Numbers."""
    of: Callable[[PyTree, Statistics], jax.Array]
    """`of(context, statistics)`, [size] float32."""


def view_of(form: str, context_size: int, rounds: int) -> View:
    """What a policy sees: `online`, how learning goes; `schedule`, how much of the lifetime has passed; `static`, its
    task's description; `constant`, nothing.

    Args:
      form: one of `FORMS`.
      context_size: numbers of a description.
      rounds: of a lifetime.
    """

    def progress(context: PyTree, seen: Statistics) -> jax.Array:
        del context
        share = seen.rounds / rounds
        return jnp.stack([share, share**2])

    def online(context: PyTree, seen: Statistics) -> jax.Array:
        unbiased = 1 / jnp.maximum(1 - jnp.array(DECAYS) ** seen.rounds, SMALLEST)
        reward = seen.reward * unbiased / (seen.largest + SMALLEST)
        error = jnp.log(seen.error * unbiased + SMALLEST)
        known = jnp.stack([reward[1], reward[0] - reward[1], error[1] / 5, error[0] - error[1]])
        return jnp.concatenate([progress(context, seen), jnp.where(seen.rounds > 0, jnp.tanh(known), 0.0)])

    views = {
        "online": View(6, online),
        "schedule": View(2, progress),
        "static": View(context_size, lambda context, seen: context),
        "constant": View(0, lambda context, seen: jnp.zeros(0)),
    }
    return views[form]


def hyper_policy(learner: Adapter, form: str, context_size: int, width: int, rounds: int, layers: int = 0) -> Adapter:
    """Builds the adapter.

    Args:
      learner: made by `gradient_steps`; what the policy puts into `fast.hyperparams` must be all that it knows of them.
      form: what the policy sees, see `view_of`.
      context_size: numbers of a task's description.
      width: units of the policy's hidden layer.
      rounds: of a lifetime.
      layers: hidden layers of the Q-network whose structure the policy sets as a lifetime starts; 0: none.

    Returns:
      An `Adapter` with meta `HyperPolicy` and fast `HyperPolicyState`.
    """
    view = view_of(form, context_size, rounds)
    network = Setter(len(SET) + layers, width)

    def init(key: Key) -> HyperPolicy:
        policy_key, start_key = jax.random.split(key)
        return HyperPolicy(policy=network.init(policy_key, jnp.zeros(view.size)), start=learner.init(start_key))

    def numbers_of(meta: HyperPolicy, governed: HyperPolicyState) -> jax.Array:
        return jnp.asarray(network.apply(meta.policy, view.of(governed.context, governed.statistics)))

    def govern(meta: HyperPolicy, governed: HyperPolicyState) -> HyperPolicyState:
        """With the hyper-parameters that the policy sets now."""
        numbers = numbers_of(meta, governed)[: len(SET)]
        hyperparams = jax.lax.stop_gradient(meta.start.hyperparams)
        return governed.replace(learner=governed.learner.replace(hyperparams=moved(hyperparams, numbers)))

    def shape(meta: HyperPolicy, governed: HyperPolicyState) -> HyperPolicyState:
        """With the structure that the policy sets."""
        edges = WHOLE + STRUCTURE_UNIT * numbers_of(meta, governed)[len(SET) :]
        fast = governed.learner
        params, target_params = ({**params, "structure": edges} for params in (fast.params, fast.target_params))
        return governed.replace(learner=fast.replace(params=params, target_params=target_params))

    def reset(key: Key, meta: HyperPolicy, context: PyTree):
        fast, memory = learner.reset(key, meta.start, context)
        statistics = Statistics(jnp.zeros((), jnp.int32), jnp.zeros(2), jnp.zeros(2), jnp.zeros(()))
        governed = HyperPolicyState(fast, context, statistics)
        return govern(meta, shape(meta, governed) if layers else governed), memory

    def act(noise: PyTree, meta: HyperPolicy, fast: HyperPolicyState, memory: PyTree, percept: Percept):
        return learner.act(noise, meta.start, fast.learner, memory, percept)

    def eval_policy(noise: PyTree, meta: HyperPolicy, fast: HyperPolicyState, memory: PyTree, percept: Percept):
        return learner.eval_policy(noise, meta.start, fast.learner, memory, percept)

    def adapt(
        key: Key, meta: HyperPolicy, fast: HyperPolicyState, rollout: Rollout
    ) -> tuple[HyperPolicyState, Metrics]:
        after, metrics = learner.adapt(key, meta.start, fast.learner, rollout)
        statistics = with_round(fast.statistics, rollout, metrics)
        governed = govern(meta, HyperPolicyState(after, fast.context, statistics))
        return governed, metrics | {f"set_{name}": getattr(fast.learner.hyperparams, name) for name in SET}

    return Adapter(init, reset, act, eval_policy, adapt, learner.noise)


def moved(hyperparams: Hyperparams, numbers: jax.Array) -> Hyperparams:
    """Hyper-parameters moved by a policy's numbers, [len(SET)]; those of zero leave them as they are.

    A positive one is multiplied by the exponential of its number; a share moves by it on the scale of log odds, from
    no nearer than `NEAREST` to its ends. What a policy sets does not decay by itself.
    """

    def move(name: str, number: jax.Array) -> jax.Array:
        value = getattr(hyperparams, name)
        if name in POSITIVE:
            return value * jnp.exp(number)
        odds = jnp.clip(value, NEAREST, 1 - NEAREST)
        return jax.nn.sigmoid(jnp.log(odds / (1 - odds)) + number)

    values = {name: move(name, number) for name, number in zip(SET, numbers, strict=True)}
    return hyperparams.replace(**values, epsilon_decay=jnp.ones(()))


def with_round(statistics: Statistics, rollout: Rollout, metrics: Metrics) -> Statistics:
    """What is known after one more round, from its mean reward and the error that its adaptation reports."""
    decay = jnp.array(DECAYS)
    reward = jnp.mean(rollout.reward)
    return Statistics(
        rounds=statistics.rounds + 1,
        reward=decay * statistics.reward + (1 - decay) * reward,
        error=decay * statistics.error + (1 - decay) * jax.lax.stop_gradient(metrics["td_error"]),
        largest=jnp.maximum(statistics.largest, jnp.abs(reward)),
    )
