"""The nouns of the engine: percepts, rollouts, tasks, and the bundles of pure functions that work on them.

Everything is written for one task. `E` is the number of environments of that task side by side, `T` the number of steps
of a rollout, `A` the number of actions; a batch of tasks is made by `jax.vmap` outside.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta.core.config import AdaptationConfig, AgentConfig, AlgorithmConfig
from jaxmeta.core.scenes import MakeScene

Key = jax.Array
PyTree = Any
Params = PyTree
Metrics = dict[str, jax.Array]
"""Scalars by name, [] float32 each."""


class Percept(NamedTuple):
    """What a learner perceives before it acts.

    A memory agent needs all of it, every other agent the observation and, to explore, what came before it.
    """

    observation: PyTree
    """[...] in the environment's own shape and dtype."""
    previous_action: jax.Array
    """The action that led here, zero at a lifetime's start. Shape and dtype of an action."""
    previous_reward: jax.Array
    """[] float32, in the environment's units, zero at a lifetime's start."""
    first: jax.Array
    """[] bool, true at the first step of an episode."""


class Rollout(NamedTuple):
    """A segment of experience in one task. Leaves are [T, E, ...]."""

    percept: Percept
    """What the learner saw."""
    action: jax.Array
    """[T, E, ...] what it did."""
    reward: jax.Array
    """[T, E] float32."""
    terminated: jax.Array
    """[T, E] bool: the episode ended and nothing follows. The successor's value is not bootstrapped."""
    truncated: jax.Array
    """[T, E] bool: the episode was cut short. The successor's value is bootstrapped."""
    next_observation: PyTree
    """[T, E, ...] the true successor, also where the environment reset itself."""
    extras: dict[str, jax.Array]
    """What `act` reported, such as `q` or `logits`."""

    @property
    def done(self) -> jax.Array:
        """[T, E] bool, true at the last step of an episode."""
        return self.terminated | self.truncated

    @property
    def episode_return(self) -> jax.Array:
        """[E] float32, undiscounted return of each environment's first episode, the step that ends it included."""
        ended_before = jnp.cumsum(self.done, axis=0) - self.done
        return jnp.sum(self.reward * (ended_before == 0), axis=0)


class Task(NamedTuple):
    """One task: what defines it, and what of it a learner may see."""

    env_params: PyTree
    """The environment's parameters. Hidden from the learner."""
    context: PyTree
    """What the learner may see (source parameters, a data set, a descriptor), or None."""


class Hyperparams(struct.PyTreeNode):
    """Hyper-parameters of Q-learning, as traced scalars, [] float32 each: changing one recompiles nothing.

    They are part of `meta`, with a copy in `fast`, so that a policy can set them and `vmap` can run several values.
    """

    learning_rate: jax.Array
    """Step size of the inner loop, where it is not learned."""
    discount: jax.Array
    """Weight of the next step's value, in [0, 1]."""
    epsilon: jax.Array
    """Probability of an exploring action, in [0, 1]."""
    epsilon_decay: jax.Array
    """Factor of `epsilon` after each round of a lifetime, in [0, 1]."""
    stickiness: jax.Array
    """Probability that an exploring action repeats the one before it, in [0, 1]."""
    temperature: jax.Array
    """Of the softmax policy over action values, in the values' units; 0 is the greedy policy."""
    target_step_size: jax.Array
    """Share of the way that the slow target parameters move at each update, in [0, 1]."""
    mixing: jax.Array
    """Weight of targets of many steps beside those of one, in [0, 1], where both are mixed."""


class Spec(NamedTuple):
    """What a learner must know of an environment before it is built."""

    observation: PyTree
    """Shapes and dtypes of one observation, `jax.ShapeDtypeStruct` leaves."""
    action: jax.ShapeDtypeStruct
    """Shape and dtype of one action."""
    num_observations: int | None
    """Size of a discrete observation space, or None."""
    num_actions: int | None
    """Size of a discrete action space, or None where actions are continuous."""
    action_range: tuple[np.ndarray, np.ndarray] | None = None
    """Lowest and highest continuous action, in its shape, where all tasks have the same finite ones; else None."""


class Initialise(Protocol):
    """Draws fresh parameters."""

    def __call__(self, key: Key) -> Params: ...


Noise = Callable[[Key], PyTree]
"""`noise(key)`: all that one action leaves to chance. That of a whole rollout is drawn at once, which mostly takes less
time than drawing it step by step; so what acts is given the noise instead of a key."""


def key_itself(key: Key) -> PyTree:
    """The `Noise` of what draws as it acts."""
    return key


class AgentAct(Protocol):
    """Chooses an action for one percept.

    Args:
      noise: what `Agent.noise` has drawn for this action alone.
      params: the agent's parameters.
      percept: of one environment.
      hyperparams: [] float32 each.

    Returns:
      The action, shape and dtype of `Spec.action`; and `extras`, what losses need, under fixed names: `logits`, the
      numbers of the distribution that the action was drawn from, [A] float32, or [N] where actions are continuous (see
      `distributions`), and what else the agent knows, such as action values `q`, [A] float32.
    """

    def __call__(
        self, noise: PyTree, params: Params, percept: Percept, hyperparams: Hyperparams, /
    ) -> tuple[jax.Array, dict[str, jax.Array]]: ...


class AgentLoss(Protocol):
    """Mean loss of a batch of experience, [] float32.

    Its derivative with respect to `params` alone is the agent's update direction: a target that no inner gradient may
    enter is computed from `target_params`. Nothing else is gradient-stopped, so that a meta-gradient, which
    differentiates that update again with respect to both, is exact. `batch` is `Experience`, or a `Rollout` if the
    agent is `on_policy`.
    """

    def __call__(
        self, params: Params, target_params: Params, batch: Any, hyperparams: Hyperparams
    ) -> tuple[jax.Array, Metrics]: ...


class Experience(NamedTuple):
    """A batch of n-step transitions, leaves [B, ...], ready for a loss."""

    observation: PyTree
    action: jax.Array
    reward: jax.Array
    """[B] float32, the discounted sum of the rewards along the way."""
    discount: jax.Array
    """[B] float32, weight of the value at the far end: 0 where the episode terminated."""
    next_observation: PyTree
    """[B, ...] observation at the far end."""
    weight: jax.Array
    """[B] float32, 0 where a slot holds no experience yet."""


class Agent(NamedTuple):
    """Learns one task."""

    init: Initialise
    act: AgentAct
    """Explores as `hyperparams` says."""
    eval_policy: AgentAct
    """Follows the policy that the parameters stand for, without exploring on top."""
    loss: AgentLoss
    spec: Spec
    config: AgentConfig
    """Its settings: among them what it takes of experience, and where its hyper-parameters start."""
    on_policy: bool = False
    """Whether it learns from each round as a whole, right after it, rather than from a replay of single transitions."""
    noise: Noise = key_itself
    """Of `act` and `eval_policy`."""


class Reset(Protocol):
    """Starts a lifetime: what the task's learner starts from, and the memory of one environment at its start."""

    def __call__(self, key: Key, meta: PyTree, context: PyTree) -> tuple[PyTree, PyTree]: ...


class Act(Protocol):
    """Chooses an action in one environment.

    Args:
      noise: what `Adapter.noise` has drawn for this action alone.
      meta: the meta-parameters.
      fast: what the lifetime has learned so far.
      memory: of this environment, without the axis E.
      percept: of this environment.

    Returns:
      The action, shape and dtype of `Spec.action`; the memory after it, structure, shapes and dtypes as before; and
      `extras`, as of `AgentAct`. What is trained by its own value reports that too, as `value`, [] float32.
    """

    def __call__(
        self, noise: PyTree, meta: PyTree, fast: PyTree, memory: PyTree, percept: Percept, /
    ) -> tuple[jax.Array, PyTree, dict[str, jax.Array]]: ...


class Adapt(Protocol):
    """Learns from a rollout of all environments of the task.

    Args:
      key: one key, used here alone.
      meta: the meta-parameters.
      fast: what the lifetime had learned when it acted.
      rollout: one round, leaves [T, E, ...], gradient-stopped.

    Returns:
      `fast` after the round, structure, shapes and dtypes as before, differentiable in `meta` and in the `fast` that
      came in where an outer rule descends through it; and metrics, [] float32 each.
    """

    def __call__(self, key: Key, meta: PyTree, fast: PyTree, rollout: Rollout) -> tuple[PyTree, Metrics]: ...


class Unroll(Protocol):
    """What `act` reports in one environment along percepts [T, ...], from a memory at their start: leaves [T, ...]."""

    def __call__(self, meta: PyTree, fast: PyTree, memory: PyTree, percepts: Percept, /) -> dict[str, jax.Array]: ...


def keep_as_it_is(key: Key, meta: PyTree, fast: PyTree, rollout: Rollout) -> tuple[PyTree, Metrics]:
    """The `Adapt` of a learner to whose `fast` a round makes no difference."""
    del key, meta, rollout
    return fast, {}


class Adapter(NamedTuple):
    """Lives one lifetime in one task.

    `meta` is learned across lifetimes, `fast` within one, `memory` belongs to one environment.
    """

    init: Initialise
    reset: Reset
    act: Act
    """How the learner behaves while it learns."""
    eval_policy: Act
    """How it behaves when what it has learned is scored; `extras` of what is trained reports the policy's `logits`."""
    adapt: Adapt = keep_as_it_is
    noise: Noise = key_itself
    """Of `act` and `eval_policy`."""
    unroll: Unroll | None = None
    """For learners whose memory does the learning, how it is run anew to be trained."""


class LearnerState(struct.PyTreeNode):
    """What a segment of a lifetime hands to the next one and to the outer rule."""

    fast: PyTree
    memory: PyTree
    """Leaves [E, ...]."""
    env_state: PyTree
    """Leaves [E, ...]."""
    percept: Percept
    """Leaves [E, ...]: what each environment shows now."""


@dataclass(frozen=True)
class Objective:
    """Scores one lifetime, or a segment of it, in one task, in two parts.

    Before adaptation all tasks share their parameters, so their rollouts are one batch; afterwards every task has
    parameters of its own. The lifetime continues from `learner_state`, or starts where that is None.
    """

    collect: Callable[[Key, PyTree, Task, LearnerState | None], PyTree]
    """`collect(key, meta, task, learner_state)`: rollouts before adaptation, without gradient, and keys for `score`."""
    score: Callable[[PyTree, Task, LearnerState | None, PyTree], tuple[jax.Array, LearnerState, Metrics]]
    """`score(meta, task, learner_state, collected)`, of the same task and learner: a scalar to minimise, whose gradient
    with respect to `meta` is the meta-gradient; the learner's state at the end; and metrics."""

    def __call__(
        self, key: Key, meta: PyTree, task: Task, learner_state: LearnerState | None
    ) -> tuple[jax.Array, LearnerState, Metrics]:
        """Both parts, one after the other."""
        return self.score(meta, task, learner_state, self.collect(key, meta, task, learner_state))


class MetaState(struct.PyTreeNode):
    """The state of meta-training, which a checkpoint saves.

    It holds no key: resume folds the step into the root key. With several seeds leaves are [members, ...].
    """

    meta: PyTree
    optimizer: PyTree
    """State of the outer optimizer."""
    step: jax.Array
    """[] int32, meta-steps taken."""
    aux_state: PyTree
    """What else an outer rule keeps between steps: unfinished lifetimes with their tasks, a replay buffer; or None."""

    @property
    def steps_taken(self) -> int:
        """`step` as a plain number, the same for all seeds."""
        return int(np.ravel(self.step)[0])

    def __repr__(self) -> str:
        """In one line: `MetaState(step 100, 4,868 parameters)`, also where leaves are traced or abstract."""
        try:
            step = str(self.steps_taken)
        except (TypeError, ValueError, IndexError):  # a traced or an abstract step has no value
            step = "unknown"
        members = getattr(self.step, "shape", ())
        several = [f"{members[0]:,} members"] if members else []
        size = _size(self.meta) // (members[0] if members and members[0] else 1)
        each = " each" if several else ""
        return f"MetaState({', '.join([f'step {step}', *several, f'{size:,} parameters{each}'])})"


class StepInfo(NamedTuple):
    """What a meta-step reports."""

    metrics: Metrics
    """`loss` and `return`, what an episode earned, among them."""
    task_is_finite: jax.Array | None = None
    """[tasks] bool, for which tasks of the batch all numbers were finite; not logged. None if unknown."""


class MetaLearner(NamedTuple):
    """What a user holds: a method, composed, for one task distribution."""

    init: Callable[[Key], MetaState]
    """`init(key)`: the state before the first meta-step, whose `step` is 0. `key` is one key, used here alone."""
    update: Callable[[Key, MetaState, Task], tuple[MetaState, StepInfo]]
    """`update(key, state, tasks)` takes one meta-step on a batch of tasks, leaves [tasks, ...]."""
    task: Callable[[Key, PyTree], Task]
    """`task(key, env_params)`: one task as this learner may see it, which depends on its method alone."""
    adapter: Adapter
    meta: Callable[[MetaState], PyTree]
    """The meta-parameters to adapt with."""
    lifetime: AdaptationConfig
    """Length and number of environments of a lifetime, with `rollout_length` resolved."""
    tasks_per_batch: int
    env_steps_per_task: int
    """Environment steps that one task costs in one meta-step."""
    config: AlgorithmConfig = AlgorithmConfig()
    """All settings of its algorithm."""
    name: str = "unnamed"
    """Of the algorithm."""

    def __repr__(self) -> str:
        """In one line: `MetaLearner(rl2, 43,717 parameters, 256 tasks a batch, 2 rounds of 1 environment x 40 steps)`.

        The parameters are those of what is adapted with; to count them, the start is traced.
        """
        facts = [self.name, f"{self.tasks_per_batch:,} tasks a batch"]
        with contextlib.suppress(Exception):  # what is unfinished is shown too
            meta = jax.eval_shape(lambda key: self.meta(self.init(key)), jax.random.key(0))
            facts.insert(1, f"{_size(meta):,} parameters")
        with contextlib.suppress(AttributeError):
            lifetime = self.lifetime
            rounds, num_envs, steps = lifetime.num_adaptations, lifetime.num_envs, lifetime.rollout_length
            facts.append(
                f"{_counted(rounds, 'round')} of {_counted(num_envs, 'environment')} x {_counted(steps, 'step')}"
            )
        return f"MetaLearner({', '.join(facts)})"


class Environment(Protocol):
    """What the engine calls of a gymnax environment."""

    def reset(self, key: Key, params: PyTree) -> tuple[PyTree, PyTree]:
        """Starts an episode; returns the observation and the state."""
        ...

    def step(self, key: Key, state: PyTree, action: jax.Array, params: PyTree) -> tuple[Any, ...]:
        """Returns observation, state, reward, terminated, truncated and info; resets itself where an episode ends.

        `info["final_observation"]` is the true successor, also where the observation is already that of a new episode.
        """
        ...

    def action_space(self, params: PyTree) -> Any:
        """Has `sample(key)` and, where it is discrete, its size `n`."""
        ...

    def observation_space(self, params: PyTree) -> Any:
        """Has its size `n` where it is discrete."""
        ...


class TaskDistribution(NamedTuple):
    """A family of tasks: one environment, and a distribution over its parameters."""

    env: Environment
    """Built once and reused: gymnax compiles anew for every instance."""
    sample: Callable[[Key, str], PyTree]
    """`sample(key, split)` draws one task's `EnvParams`; the split is static."""
    horizon: int
    """Steps of the longest episode."""
    name: str = "unnamed"
    """The specification that makes it again, such as `grid_navi:goals=split`."""
    splits: tuple[str, ...] = ("train", "validation", "test")
    """These three (all tuning uses `validation`) and, where it means something, `shifted`."""
    tasks_seen: Callable[[str], bool] = lambda split: True
    """Whether tasks of a split also occur in training. Say so unless you know better."""
    describe: Callable[[PyTree], jax.Array] = lambda params: jnp.zeros(0)
    """`describe(params)` is [D] float32, which only learners declared privileged may see."""
    oracle: Callable[[PyTree], jax.Array] | None = None
    """`oracle(params)` is the best expected return of an episode, [] float32, or None where it cannot be computed."""
    suggested: Mapping[str, Any] = MappingProxyType({})
    """Settings that suit the family, by path, such as `agent.discount`. What an algorithm has no setting for does not
    apply to it; a user's own take precedence."""
    policies: Callable[[AdaptationConfig], Mapping[str, Adapter]] = lambda lifetime: {}
    """`policies(lifetime)`: by name, what is known to act well in the family over such a lifetime. They learn nothing
    across tasks, their meta is None, and they are evaluated beside every learner."""
    scene: MakeScene | None = None
    """`scene(env_params)`: how a task is drawn by `jaxmeta show`, or None where the family has no drawing."""

    def __repr__(self) -> str:
        """In one line: `TaskDistribution(grid_navi, horizon 15, splits train, validation, test)`."""
        return f"TaskDistribution({self.name}, horizon {self.horizon}, splits {', '.join(map(str, self.splits))})"


def _size(tree: PyTree) -> int:
    """How many numbers there are in a tree of arrays, traced or abstract ones among them."""
    return sum(getattr(leaf, "size", 1) for leaf in jax.tree.leaves(tree))


def _counted(number: int, what: str) -> str:
    """A number of things.

    >>> _counted(1, "round"), _counted(2000, "step")
    ('1 round', '2,000 steps')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def batch_of_tasks(key: Key, learner: MetaLearner, tasks: TaskDistribution) -> Task:
    """Draws the training tasks of a meta-step as a learner may see them, leaves [tasks, ...]."""
    count = learner.tasks_per_batch
    env_params = sample_tasks(key, tasks, "train", count)
    return jax.vmap(learner.task)(jax.random.split(jax.random.fold_in(key, 1), count), env_params)


def sample_tasks(key: Key, tasks: TaskDistribution, split: str, num_tasks: int) -> PyTree:
    """Draws tasks of a split: `EnvParams` with leaves [num_tasks, ...]."""
    return jax.vmap(lambda key: tasks.sample(key, split))(jax.random.split(key, num_tasks))
