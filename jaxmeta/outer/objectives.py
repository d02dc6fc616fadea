"""What meta-parameters are judged by: how well the parameters do that a lifetime arrives at.

The scores of a Q-network's adapted parameters (`OUTER_LOSSES`) differ in what they reward. `policy_gradient` is the
return of the softmax policy over the adapted action values, which is what evaluation measures; `td` and `monte_carlo`
are regression errors on fresh experience, which a network can lower without acting better.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.config import AdaptationConfig, Config, Count, Fraction, NonNegative
from jaxmeta.core.rollout import Round, Runner, keys_of_rounds
from jaxmeta.core.scans import Scan
from jaxmeta.core.types import (
    Adapter,
    Agent,
    Key,
    LearnerState,
    Metrics,
    Objective,
    PyTree,
    Rollout,
    Task,
)
from jaxmeta.rl import losses, replay
from jaxmeta.rl.distributions import ActionDistribution


class ScoreConfig(Config, frozen=True, kw_only=True):
    """How adapted parameters are scored."""

    loss: Literal["policy_gradient", "td", "monte_carlo", "return"] = "policy_gradient"
    """The loss of adapted parameters: `policy_gradient`, `td`, `monte_carlo`, or, where no gradient is needed of
    it, `return`."""
    scored: Literal["every", "last", "before_and_every"] = "every"
    """After which adaptations parameters are scored: `every`, `last`, or `before_and_every`, before the first one
    too."""
    num_query_envs: Count = 16
    """Fresh environments that each score is estimated in."""
    outer_discount: Fraction = 1.0
    """Discount of the returns that `policy_gradient` maximises; below 1, less variance, less weight on late rewards."""
    entropy: NonNegative = 0.01
    """Weight of the adapted policy's entropy in `policy_gradient`."""

    @property
    def scores_before(self) -> bool:
        """Whether parameters are scored before the first adaptation too."""
        return self.scored == "before_and_every"

    def env_steps(self, adaptations: int, horizon: int) -> int:
        """Environment steps that the scores of so many adaptations take."""
        return (adaptations + self.scores_before) * self.num_query_envs * horizon


class ObjectiveConfig(ScoreConfig, frozen=True, kw_only=True):
    """How lifetimes are scored whose gradient is descended on."""

    lifetimes_per_task: Count = 1
    """Independent lifetimes of each task."""
    sampling_correction: bool = True
    """Credit how a lifetime explored by the returns that adaptation then led to, held against those of the task's other
    lifetimes: it takes `lifetimes_per_task` of 2 or more, of a single one nothing is credited."""


OuterLoss = Callable[[PyTree, LearnerState, Rollout], tuple[jax.Array, Metrics]]
"""`outer_loss(meta, learner_state, query rollout)`: a scalar to minimise, differentiable in `meta` and `fast`."""

MOST_UNROLLED_ROUNDS = 4
"""Lives of up to so many rounds are written out in the program: a fifth faster and more, and compiled as soon."""


def policy_outputs(
    adapter: Adapter, meta: PyTree, learner_state: LearnerState, rollout: Rollout, eval_policy: bool = False
) -> jax.Array:
    """Parameters of the action distributions, [T, E, N], over a rollout, of a learner without memory."""
    act = adapter.eval_policy if eval_policy else adapter.act
    noise = adapter.noise(jax.random.key(0))  # the distribution is needed, not a draw from it
    memory = jax.tree.map(lambda leaf: leaf[0], learner_state.memory)

    def numbers(percept):
        return act(noise, meta, learner_state.fast, memory, percept)[2]["logits"]

    return jax.vmap(jax.vmap(numbers))(rollout.percept)


def advantage_of(query: Rollout, discount: float) -> jax.Array:
    """Returns to go of a query rollout, held against those of its other environments, [T, E]."""
    decay = discount * ~query.done
    return losses.leave_one_out_advantage(jax.vmap(losses.returns_to_go, 1, 1)(query.reward, decay))


def policy_gradient(adapter: Adapter, actions: ActionDistribution, config: ScoreConfig) -> OuterLoss:
    """REINFORCE on the adapted policy, with a leave-one-out baseline and an entropy bonus.

    Its derivative is that of the policy's expected return with respect to the adapted parameters, on average.

    Where a query rollout holds several episodes, all of them count, the last as far as it goes.

    Reference: Williams (1992); Finn, Abbeel and Levine (2017), algorithm 3.
    """

    def outer_loss(meta: PyTree, learner_state: LearnerState, query: Rollout):
        advantage = advantage_of(query, config.outer_discount)
        numbers = policy_outputs(adapter, meta, learner_state, query, eval_policy=True)
        log_prob = actions.log_prob(numbers, query.action)
        entropy = jnp.mean(actions.entropy(numbers))
        surrogate = jnp.mean(log_prob * jax.lax.stop_gradient(advantage))
        steps = query.reward.shape[0]
        return -steps * (surrogate + config.entropy * entropy), {"entropy": entropy}

    return outer_loss


def regression(agent: Agent, n_step: int) -> OuterLoss:
    """The agent's own loss on fresh experience of the adapted policy, with n-step targets (0: Monte Carlo)."""

    def outer_loss(meta: PyTree, learner_state: LearnerState, query: Rollout):
        del meta
        fast = learner_state.fast
        batch = replay.experience(query, fast.hyperparams.discount, n_step)
        return agent.loss(fast.params, fast.target_params, batch, fast.hyperparams)

    return outer_loss


def negative_return(meta: PyTree, learner_state: LearnerState, query: Rollout) -> tuple[jax.Array, Metrics]:
    """Minus the mean return of a query episode, from which no gradient comes: for evolution strategies."""
    del meta, learner_state
    return -jnp.mean(query.episode_return), {}


OUTER_LOSSES: dict[str, Callable[[Adapter, Agent, ActionDistribution, ScoreConfig], OuterLoss]] = {
    "policy_gradient": lambda adapter, agent, actions, config: policy_gradient(adapter, actions, config),
    "td": lambda adapter, agent, actions, config: regression(agent, 1),
    "monte_carlo": lambda adapter, agent, actions, config: regression(agent, 0),
    "return": lambda adapter, agent, actions, config: negative_return,
}


def round_weights(rounds: int, config: ScoreConfig) -> jax.Array:
    """What the score after each round counts, [rounds] float32; with one before the first round they sum to 1."""
    if config.scored == "last":
        return (jnp.arange(rounds) == rounds - 1).astype(jnp.float32)
    return jnp.ones(rounds) / (rounds + config.scores_before)


class Collected(NamedTuple):
    """Rollouts of a lifetime before any adaptation, and the keys of the rest."""

    reset_key: Key
    """Of the lifetime's reset."""
    keys: Key
    """[rounds, 3], see `Runner.round`."""
    first: tuple[LearnerState, Rollout] | None
    """What was done in the first round, where rounds are unrolled."""
    before: Rollout | None
    """What was played before it, where that is scored."""


def post_adaptation(
    runner: Runner,
    actions: ActionDistribution,
    lifetime: AdaptationConfig,
    outer_loss: OuterLoss,
    config: ObjectiveConfig,
    steps: int,
    scan: Scan = jax.lax.scan,
) -> Objective:
    """Scores the parameters after rounds of a lifetime, on fresh episodes.

    The derivative of an outer loss holds the rollouts constant, though the parameters before adaptation chose their
    actions. The sampling correction adds the missing term, where a task has several lifetimes: the log-probability of a
    round's actions, times the advantage of its later rounds over those of the task's other lifetimes. Together with
    `policy_gradient`, undiscounted and without entropy, that is the exact derivative of the expected return after
    adaptation. Under the other outer losses the correction is the same, in returns.

    If scores before the first round count too, the initial parameters learn to act well without information of the
    task, and so to explore.

    Reference: Finn, Abbeel and Levine (2017); Stadie et al. (2018) for the credit of exploration.

    Args:
      runner: the environment and the adapter.
      actions: the distribution over actions.
      lifetime: how long.
      outer_loss: the score of adapted parameters on a query rollout.
      config: how many lifetimes and query environments, and which rounds are scored.
      steps: length of a query rollout.
      scan: how the rounds of a long lifetime follow one another, see `scans`.

    Returns:
      An `Objective`. It returns the state of the task's first lifetime; its metrics hold `return`, the mean return of a
      query episode after the last round.
    """
    corrected = config.sampling_correction and config.lifetimes_per_task > 1
    weights = round_weights(lifetime.num_adaptations, config)
    unrolled = lifetime.num_adaptations <= MOST_UNROLLED_ROUNDS

    def log_prob_of(round_: Round, meta: PyTree) -> jax.Array:
        """Log-probability of everything that a round did, []."""
        numbers = policy_outputs(runner.adapter, meta, round_.before, round_.rollout)
        return jnp.sum(actions.log_prob(numbers, round_.rollout.action))

    def reset(key: Key, meta: PyTree, task: Task, learner_state: LearnerState | None) -> LearnerState:
        return runner.reset(key, meta, task, lifetime.num_envs) if learner_state is None else learner_state

    def query(key: Key, meta: PyTree, task: Task, learner_state: LearnerState) -> Rollout:
        return runner.evaluate_policy(key, meta, task, learner_state, config.num_query_envs, steps)

    def collect_once(key: Key, meta: PyTree, task: Task, learner_state: LearnerState | None) -> Collected:
        reset_key, adapt_key, before_key = jax.random.split(key, 3)
        keys = keys_of_rounds(adapt_key, lifetime.num_adaptations)
        learner_state = reset(reset_key, meta, task, learner_state)
        first = runner.rollout(keys[0, 0], meta, task, learner_state, lifetime.rollout_length) if unrolled else None
        return Collected(
            reset_key, keys, first, query(before_key, meta, task, learner_state) if config.scores_before else None
        )

    def score_once(meta: PyTree, task: Task, learner_state: LearnerState | None, collected: Collected):
        learner_state = reset(collected.reset_key, meta, task, learner_state)

        def score_round(key: Key, round_: Round):
            after = query(key, meta, task, round_.after)
            loss, metrics = outer_loss(meta, round_.after, after)
            explored = log_prob_of(round_, meta) if corrected else jnp.zeros(())
            return loss, explored, {**round_.metrics, **metrics, "return": jnp.mean(after.episode_return)}

        def one_round(learner_state: LearnerState, keys: Key, acted: tuple[LearnerState, Rollout] | None = None):
            return runner.adapt_once(keys, meta, task, learner_state, lifetime.rollout_length, score_round, acted)

        value = 0.0
        if collected.before is not None:
            value = outer_loss(meta, learner_state, collected.before)[0] / (lifetime.num_adaptations + 1)
        if unrolled:
            learner_state, *reports = _unrolled(one_round, learner_state, collected.keys, collected.first)
            scores, explored, metrics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *reports)
        else:
            learner_state, (scores, explored, metrics) = scan(one_round, learner_state, collected.keys)
        return value + scores @ weights, explored, metrics, learner_state

    def collect(key: Key, meta: PyTree, task: Task, learner_state: LearnerState | None) -> Collected:
        keys = jax.random.split(key, config.lifetimes_per_task)
        return jax.vmap(collect_once, (0, None, None, None))(keys, meta, task, learner_state)

    def score(meta: PyTree, task: Task, learner_state: LearnerState | None, collected: Collected):
        values, explored, metrics, learner_states = jax.vmap(score_once, (None, None, None, 0))(
            meta, task, learner_state, collected
        )
        value = jnp.mean(values)
        if corrected:
            following = jnp.cumsum((weights * metrics["return"])[:, ::-1], axis=1)[:, ::-1]
            advantage = losses.leave_one_out_advantage(following.T).T
            value -= jnp.mean(jnp.sum(explored * jax.lax.stop_gradient(advantage), axis=1))
        last = jax.tree.map(lambda leaf: jnp.mean(leaf[:, -1]), metrics)
        return value, jax.tree.map(lambda leaf: leaf[0], learner_states), last

    return Objective(collect, score)


def _unrolled(one_round: Callable, learner_state: LearnerState, keys: Key, first: tuple[LearnerState, Rollout] | None):
    """The learner's state after all rounds, unrolled, and then what each of them reports.

    That is faster to differentiate than a loop: nothing is stacked, and a replay buffer knows how full it is. The
    program grows with the number of rounds.
    """
    reports = []
    for index in range(len(keys)):
        learner_state, report = one_round(learner_state, keys[index], None if index else first)
        reports.append(report)
    return learner_state, *reports
