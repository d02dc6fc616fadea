"""Policies that adapt: what a meta-gradient through sampled data is right about, by enumeration in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Percept, Rollout, Spec, Task
from jaxmeta.inner.gradient import GradientConfig, Variant, gradient_steps
from jaxmeta.outer import meta_gradient, objectives
from jaxmeta.outer.epochs import TrustRegionConfig
from jaxmeta.outer.meta_gradient import MetaGradientConfig
from jaxmeta.outer.objectives import ObjectiveConfig
from jaxmeta.outer.promp import proximal
from jaxmeta.rl import ActorCriticConfig, actor_critic, advantages, distributions, losses
from tests import tiers, toy
from tests.conftest import tiny

REWARDS = np.array([[0.3, -0.5], [1.0, -1.2]])
"""By state and action. The first action is the next state, so that it decides what the second is worth."""
SPEC = Spec(jax.ShapeDtypeStruct((2,), jnp.float64), jax.ShapeDtypeStruct((), jnp.int32), None, 2)
ACTIONS = distributions.of_actions(SPEC)
RATE = 1.5
pytestmark = pytest.mark.usefixtures("float64")


class Fork:
    """Two states, two actions, one or two steps; its parameter is the number of steps."""

    def reset(self, key, params):
        """Starts in state 0."""
        return jnp.eye(2)[0], (jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def step(self, key, state, action, params):
        """Pays, and goes to the state of the action's number."""
        time, node = state
        done = time + 1 >= params
        observation, start = self.reset(key, params)
        after = jnp.eye(2)[action]
        state = jax.tree.map(lambda old, new: jnp.where(done, old, new), start, (time + 1, action))
        info = {"final_observation": after}
        reward = jnp.asarray(REWARDS)[node, action]
        return jnp.where(done, observation, after), state, reward, done, jnp.zeros((), bool), info

    def action_space(self, params):
        """Two actions."""
        return toy.TwoActions()


def agent_by(surrogate, **options):
    """A softmax policy without a hidden layer, and a value that never leaves zero."""
    plain = {"baseline": "value", "value_weight": 0.0, "gae_lambda": 1.0, "normalised": False, "discount": 1.0}
    return actor_critic(SPEC, ActorCriticConfig(hidden=(), surrogate=surrogate, **plain | options))


def start_of(agent):
    """Parameters away from every symmetry, and what makes them of a vector."""
    params = jax.tree.map(jnp.zeros_like, agent.init(jax.random.key(0)))
    params["policy"] = jax.tree.map(
        lambda leaf: 0.7 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params["policy"]
    )
    policy, unravel = ravel_pytree(params["policy"])
    return policy, lambda vector: params | {"policy": unravel(vector)}


def logits_of(vector):
    """Logits by state, [2, 2], of a vector: a bias, and weights by state."""
    return vector[:2] + vector[2:].reshape(2, 2)


def walks(steps):
    """All episodes: their states and actions."""
    for actions in itertools.product((0, 1), repeat=steps):
        yield (0, *actions[:-1]), actions


def log_prob_of(vector, walk):
    log_probs = jax.nn.log_softmax(logits_of(vector))
    return sum(log_probs[state, action] for state, action in zip(*walk, strict=True))


def tables(steps):
    """States and actions of all episodes, and the sum of rewards from each step on; each [2 ** steps, steps]."""
    states, actions = (np.array(column) for column in zip(*walks(steps), strict=True))
    return states, actions, np.cumsum(REWARDS[states, actions][:, ::-1], axis=1)[:, ::-1]


def chances(vector, steps):
    """Of all episodes."""
    states, actions, _ = tables(steps)
    return jnp.exp(jnp.sum(jax.nn.log_softmax(logits_of(vector))[states, actions], axis=1))


def expected_return(vector, steps):
    return chances(vector, steps) @ tables(steps)[2][:, 0]


def adapted(vector, data, steps):
    """One step of plain REINFORCE on episodes of the numbers `data`, written anew."""
    states, actions, later = (jnp.asarray(column)[data] for column in tables(steps))

    def surrogate(vector):
        return jnp.mean(jax.nn.log_softmax(logits_of(vector))[states, actions] * later)

    return vector + RATE * jax.grad(surrogate)(vector)


@functools.cache
def exact_meta_gradient(steps, episodes):
    """Gradient of the expected return after adaptation to so many episodes, over everything that can be sampled."""
    vector, _ = start_of(agent_by("naive"))
    everything = jnp.array(list(itertools.product(range(2**steps), repeat=episodes)))

    def after_adaptation(vector):
        def part(data):
            chance = jnp.prod(chances(vector, steps)[data])
            return chance * expected_return(adapted(vector, data, steps), steps)

        return jnp.sum(jax.vmap(part)(everything))

    return np.asarray(jax.jit(jax.grad(after_adaptation))(vector))


def adapter_of(agent, lifetime):
    """One step of plain gradient descent at a time."""
    return gradient_steps(agent, lifetime, GradientConfig(learning_rate=RATE), variant=Variant(target_network=False))


def meta_gradients(surrogate, steps, episodes, samples, **options):
    """Independent estimates by the engine, [samples, D], of the gradient of the return after adaptation."""
    agent = agent_by(surrogate)
    lifetime = AdaptationConfig(num_envs=episodes, rollout_length=steps, num_adaptations=1)
    adapter = adapter_of(agent, lifetime)
    config = ObjectiveConfig(num_query_envs=8, entropy=0.0, **options)
    outer_loss = objectives.policy_gradient(adapter, ACTIONS, config)
    objective = objectives.post_adaptation(Runner(Fork(), adapter), ACTIONS, lifetime, outer_loss, config, steps)
    vector, unravel = start_of(agent)
    meta = adapter.init(jax.random.key(0))

    def value(vector, key):
        return -objective(key, meta.replace(params=unravel(vector)), Task(jnp.array(steps), None), None)[0]

    gradients = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(vector, jax.random.split(jax.random.key(1), samples))
    return np.asarray(gradients)


def distance_in_standard_errors(samples, exact):
    """The largest over components; and the standard error's norm as a share of the exact vector's."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    gap = np.abs(samples.mean(axis=0) - exact)
    return np.max(gap / np.maximum(error, 1e-12)), np.linalg.norm(error) / np.linalg.norm(exact)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2])
def test_the_whole_graphs_score_function_matches_the_exact_meta_gradient(steps):
    """Inner data count once: by the sampling correction, and not by the inner surrogate's second derivative too."""
    samples = meta_gradients("naive", steps, episodes=2, samples=12_000, lifetimes_per_task=4)
    exact = exact_meta_gradient(steps, episodes=2)
    distance, relative_error = distance_in_standard_errors(samples, exact)
    assert relative_error < 0.02
    assert distance < 3


@pytest.mark.parametrize(("surrogate", "corrected"), [("lvc", True), *tiers.slow(("naive", False), ("dice", True))])
def test_counting_the_inner_data_never_or_twice_misses_the_exact_meta_gradient(surrogate, corrected):
    options = {"lifetimes_per_task": 4, "sampling_correction": corrected}
    samples = meta_gradients(surrogate, 2, episodes=2, samples=12_000, **options)
    distance, _ = distance_in_standard_errors(samples, exact_meta_gradient(2, episodes=2))
    assert distance > 10


def inner_hessians(surrogate, steps, samples):
    """Second derivatives of the agent's loss, [samples, D * D], each on an episode of its own."""
    agent = agent_by(surrogate)
    adapter = adapter_of(agent, AdaptationConfig(num_envs=1, rollout_length=steps, num_adaptations=1))
    vector, unravel = start_of(agent)
    meta = adapter.init(jax.random.key(0)).replace(params=unravel(vector))

    def hessian(key):
        reset_key, rollout_key = jax.random.split(key)
        task = Task(jnp.array(steps), None)
        learner_state = Runner(Fork(), adapter).reset(reset_key, meta, task, 1)
        taken = Runner(Fork(), adapter).rollout(rollout_key, meta, task, learner_state, steps)[1]
        loss = functools.partial(agent.loss, target_params=meta.params, batch=taken, hyperparams=meta.hyperparams)
        return jax.hessian(lambda vector: loss(unravel(vector))[0])(vector).ravel()

    return vector, np.asarray(jax.jit(jax.vmap(hessian))(jax.random.split(jax.random.key(2), samples)))


def exact_hessian(vector, steps):
    return -np.asarray(jax.jit(jax.hessian(lambda vector: expected_return(vector, steps)))(vector)).ravel() / steps


@pytest.mark.parametrize(("surrogate", "steps"), [("dice", 2), ("lvc", 1), *tiers.slow(("dice", 1))])
def test_the_mean_inner_hessian_matches_the_exact_one(surrogate, steps):
    vector, samples = inner_hessians(surrogate, steps, 30_000)
    distance, relative_error = distance_in_standard_errors(samples, exact_hessian(vector, steps))
    assert relative_error < 0.02
    assert distance < 3.5  # the largest of 36


@pytest.mark.parametrize(("surrogate", "steps"), [("naive", 2), ("lvc", 2), *tiers.slow(("naive", 1))])
def test_the_mean_inner_hessian_misses_the_exact_one(surrogate, steps):
    vector, samples = inner_hessians(surrogate, steps, 30_000)
    assert distance_in_standard_errors(samples, exact_hessian(vector, steps))[0] > 10


def test_low_variance_curvature_leaves_out_what_actions_do_to_later_values_and_nothing_else():
    """Exact: E of the sum over t of (d log pi_t)(d Q_t)^T, and its transpose, is what is missing."""

    def value_after(vector, state):
        return jnp.exp(jax.nn.log_softmax(logits_of(vector))[state]) @ REWARDS[state]

    vector, samples = inner_hessians("lvc", 2, 40_000)
    missing = jnp.zeros((vector.size, vector.size))
    for action in (0, 1):
        score = jax.grad(lambda vector, action=action: jax.nn.log_softmax(logits_of(vector))[0, action])(vector)
        later = jax.grad(value_after)(vector, action)
        missing += jnp.exp(jax.nn.log_softmax(logits_of(vector))[0, action]) * jnp.outer(score, later)
    left = exact_hessian(vector, 2) + np.asarray(missing + missing.T).ravel() / 2
    assert distance_in_standard_errors(samples, left)[0] < 3.5


@pytest.mark.slow
def test_the_first_proximal_step_is_along_the_meta_gradient():
    """Nothing is clipped yet, so that it is the same on average; later steps see what the first one changed."""
    agent = agent_by("dice")
    lifetime = AdaptationConfig(num_envs=2, rollout_length=2, num_adaptations=tiers.number(2, 1))
    adapter = adapter_of(agent, lifetime)
    config = ObjectiveConfig(num_query_envs=4, entropy=0.1, scored="before_and_every")
    outer_loss = objectives.policy_gradient(adapter, ACTIONS, config)
    objective = objectives.post_adaptation(Runner(Fork(), adapter), ACTIONS, lifetime, outer_loss, config, 2)
    vector, unravel = start_of(agent)
    meta = adapter.init(jax.random.key(0)).replace(params=unravel(vector))
    env_params = jnp.full(4, 2)
    rules = {"descent": meta_gradient(adapter, objective, optax.sgd(0.05))}
    for epochs in (1, 2)[: tiers.number(2, 1)]:
        outer = MetaGradientConfig(trust_region=TrustRegionConfig(epochs=epochs, minibatches=1))
        given = (Runner(Fork(), adapter), ACTIONS, lifetime, config, outer, optax.sgd(0.05), 2)
        rules[f"proximal, {epochs}"] = proximal(*given)
    moved = {}
    for name, (init, update) in rules.items():
        state = init(jax.random.key(0)).replace(meta=meta)
        step = jax.vmap(
            lambda key, update=update, state=state: update(key, state, Task(env_params, None))[0].meta.params["policy"]
        )
        after = jax.jit(step)(jax.random.split(jax.random.key(3), 3_000))
        moved[name] = np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(after)) - vector
    first, again = moved["descent"], moved["proximal, 1"]
    error = np.sqrt(sum(x.var(axis=0, ddof=1) / len(x) for x in (first, again)))
    gap = np.abs(first.mean(axis=0) - again.mean(axis=0))
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(first.mean(axis=0))
    assert np.all(gap < 3.5 * error + 1e-9)
    if tiers.is_full():
        assert np.linalg.norm(moved["proximal, 2"].mean(axis=0)) > 1.5 * np.linalg.norm(again.mean(axis=0))


def test_dice_is_the_sum_of_rewards_behind_magic_boxes_to_third_order():
    scores = np.random.default_rng(0).normal(size=(5, 3))
    first = jnp.array([True, False, False, True, False])
    reward = jnp.array([0.5, -1.0, 2.0, 0.3, 0.7])
    ended = jnp.array([False, False, True, False, False])

    def literal(vector):
        log_probs = jnp.sin(scores @ vector)
        boxes = [log_probs[:1], log_probs[:2], log_probs[:3], log_probs[3:4], log_probs[3:5]]
        total = jnp.stack([jnp.sum(box) for box in boxes])
        return jnp.sum(jnp.exp(total - jax.lax.stop_gradient(total)) * reward)

    def ours(vector):
        log_probs = jnp.sin(scores @ vector)
        advantage = losses.returns_to_go(reward, 1.0 * ~ended)
        return jnp.sum(losses.dice_surrogate(log_probs - jax.lax.stop_gradient(log_probs), first, advantage))

    at = jnp.array([0.2, -0.4, 0.9])
    for derivative in (jax.grad, jax.hessian, lambda function: jax.jacfwd(jax.hessian(function))):
        found, expected = (jax.jit(derivative(surrogate))(at) for surrogate in (ours, literal))
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_baseline_leaves_the_mean_of_all_derivatives_alone():
    """What is held against a state's actions, whatever it is, adds nothing on average."""
    vector = jnp.array([0.4, -0.3, 0.8, 0.1, -0.6, 0.5])

    def surrogate(vector, walk, baseline):
        states, actions = walk
        log_probs = jax.nn.log_softmax(logits_of(vector))[jnp.array(states), jnp.array(actions)]
        return losses.dice_surrogate(log_probs - jax.lax.stop_gradient(log_probs), jnp.array([True, False]), baseline)

    held = {0: 1.3, 1: -0.7}
    for derivative in (jax.grad, jax.hessian):

        @jax.jit
        def mean(vector, derivative=derivative):
            total = 0.0
            for walk in walks(2):
                baseline = jnp.array([held[state] for state in walk[0]])
                total += jnp.exp(log_prob_of(vector, walk)) * derivative(
                    lambda vector, walk=walk, baseline=baseline: jnp.sum(surrogate(vector, walk, baseline))
                )(vector)
            return total

        np.testing.assert_allclose(mean(vector), 0, atol=1e-12)


def test_generalised_advantages_match_their_definition():
    """A sum over later surprises of the same episode, written as a double loop."""
    random = np.random.default_rng(3)
    reward, value, next_value = random.normal(size=(3, 7))
    terminated = np.array([False, False, True, False, False, False, False])
    truncated = np.array([False, False, False, False, True, False, False])
    discount, gae_lambda = 0.9, 0.7
    expected = np.zeros(7)
    for t in range(7):
        for k in range(t, 7):
            surprise = reward[k] + discount * next_value[k] * (not terminated[k]) - value[k]
            expected[t] += (discount * gae_lambda) ** (k - t) * surprise
            if terminated[k] or truncated[k]:
                break
    given = (reward, terminated, terminated | truncated, value, next_value)
    found = advantages.generalised_advantage(*map(jnp.asarray, given), discount, gae_lambda)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_linear_baseline_is_least_squares_on_observation_and_time():
    random = np.random.default_rng(4)
    features, returns = random.normal(size=(40, 6, 2)), random.normal(size=(40, 6))
    first = np.zeros((40, 6), bool)
    first[0], first[15, :3] = True, True
    time = np.zeros((40, 6))
    for t in range(1, 40):
        time[t] = np.where(first[t], 0, time[t - 1] + 1)
    time = time[..., None] / 100
    rows = np.concatenate([features, features**2, time, time**2, time**3, np.ones_like(time)], axis=-1)
    weights = np.linalg.lstsq(rows.reshape(240, -1), returns.ravel(), rcond=None)[0]
    found = advantages.linear_baseline(jnp.asarray(features), jnp.asarray(first), jnp.asarray(returns))
    np.testing.assert_allclose(found, rows @ weights, atol=1e-4)  # the ridge


def rollout_of(reward, terminated, truncated, observation, next_observation):
    steps = len(reward)
    first = np.concatenate([[True], (terminated | truncated)[:-1]])
    percept = Percept(observation[:, None], jnp.zeros((steps, 1), jnp.int32), jnp.zeros((steps, 1)), first[:, None])
    extras = {"logits": jnp.zeros((steps, 1, 2))}
    actions = jnp.zeros((steps, 1), jnp.int32)
    columns = (jnp.asarray(column)[:, None] for column in (reward, terminated, truncated))
    return Rollout(percept, actions, *columns, next_observation[:, None], extras)


def test_a_learned_value_is_bootstrapped_where_an_episode_is_cut_short_and_not_where_it_terminates():
    """The value's loss is lowest, zero, at the values that follow from that."""
    observation = jnp.eye(2)[jnp.array([0, 1])]
    agent = agent_by("dice", value_weight=1.0, gae_lambda=0.0)
    params = agent.init(jax.random.key(0))
    network = jax.tree.map(jnp.zeros_like, params["value"])
    network["params"]["head"]["kernel"] = jnp.array([[2.0], [4.0]])
    params = params | {"value": network}
    reward = jnp.array([0.0, 4.0])
    for truncated, error in ((np.array([True, False]), 0.0), (np.array([False, False]), 0.5 * 2.0**2 / 2)):
        terminated = np.array([not truncated[0], True])
        rollout = rollout_of(reward, terminated, truncated, observation, observation[jnp.array([1, 0])])
        value_loss = jax.jit(agent.loss)(params, params, rollout, toy.hyperparams(discount=0.5))[1]["value_loss"]
        np.testing.assert_allclose(value_loss, error, atol=1e-12)


def test_entropy_lowers_the_inner_loss_and_the_baseline_is_held_constant():
    observation, never = jnp.eye(2)[jnp.array([0, 1, 0])], np.zeros(3, bool)
    rollout = rollout_of(jnp.array([0.5, -1.0, 2.0]), never, never, observation, observation)
    # Drawn by another policy: where actions are as probable as they were, advantages of any size are worth the same.
    rollout = rollout._replace(extras={"logits": jnp.broadcast_to(jnp.array([0.7, -0.2]), (3, 1, 2))})
    agents = [agent_by("dice", inner_entropy=weight) for weight in (0.0, 0.3)]
    params = jax.tree.map(lambda leaf: leaf + 0.5, agents[0].init(jax.random.key(0)))  # of logits that are equal
    params["policy"] = jax.tree.map(jnp.zeros_like, params["policy"])
    hyperparams = toy.hyperparams(discount=0.9)

    @jax.jit
    def losses_and_slope(params, target_params):
        plain, bonus = (agent.loss(params, target_params, rollout, hyperparams)[0] for agent in agents)
        return (
            plain,
            bonus,
            jax.grad(lambda params: agents[0].loss(params, target_params, rollout, hyperparams)[0])(params),
        )

    plain, bonus, slope = losses_and_slope(params, params)
    np.testing.assert_allclose(bonus - plain, -0.3 * np.log(2), rtol=1e-6)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope["value"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(slope["policy"]))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"surrogate": "dize"}, "Did you mean 'dice'?"),
        ({"baseline": "quadratic"}, "baseline must be"),
        ({"gae_lambda": 1.5}, "gae_lambda must be at most 1, got 1.5"),
        ({"initial_scale": 0.0}, "initial_scale must be above 0, got 0.0"),
        ({"objective.loss": "td"}, "objective.loss must be 'policy_gradient' or 'return' for agent 'actor_critic'"),
    ],
)
def test_a_bad_setting_is_refused_with_a_sentence(grid, settings, named):
    with pytest.raises(UsageError) as refused:
        make_learner("maml", grid, tiny("maml", {"agent": "actor_critic"} | settings))
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
