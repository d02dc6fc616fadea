"""What every task distribution and its environment must do."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.environment import Environment
from gymnax.environments.spaces import Box, Discrete
from gymnax.wrappers import FlattenObservationWrapper, LogWrapper

import jaxmeta_envs
from jaxmeta.core.errors import UsageError
from tests import tiers

WITH_ORACLE = [
    "grid_navi:size=3,horizon=4,goals=split,holdout=2",
    "cartpole:horizon=20",
    "maze:size=5,horizon=12",
    "probe:number=3",
]
no_xminigrid = pytest.mark.skipif(importlib.util.find_spec("xminigrid") is None, reason="xminigrid is not installed")
SPECS = [
    *WITH_ORACLE,
    "mountain_car:horizon=20",
    "pendulum:torques=0,horizon=20",
    "reacher:horizon=20",
    "recommender:items=6,features=3,session=8,drift=0.5",
    "gymnax:id=MountainCar-v0,vary=force@0.001@0.002+gravity@0.002@0.003,horizon=20",
    *tiers.slow("acrobot:horizon=20", "pendulum:horizon=20"),
    pytest.param("xland:size=5,horizon=20,distractors=0", marks=[no_xminigrid, pytest.mark.slow]),
]
TASKS = 8
STEPS = 50

assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@functools.cache
def made(spec):
    return jaxmeta_envs.make(spec)


@functools.cache
def drawn(spec, split="train"):
    """Tasks, leaves [TASKS, ...]."""
    keys = jax.random.split(jax.random.key(0), TASKS)
    return jax.jit(jax.vmap(lambda key: made(spec).sample(key, split)))(keys)


def some_action(env, params):
    return env.action_space(params).sample(jax.random.key(3))


def pick(batch, index):
    return jax.tree.map(lambda leaf: leaf[index], batch)


@functools.cache
def round_(spec):
    """Uniformly random lives in the drawn train tasks, with automatic resets; leaves [TASKS, STEPS, ...]."""
    env = made(spec).env

    def live(key, params):
        def step(carry, key):
            observation, state = carry
            key_action, key_step = jax.random.split(key)
            action = env.action_space(params).sample(key_action)
            after, state_after, reward, terminated, truncated, info = env.step(key_step, state, action, params)
            record = {
                "observation": observation,
                "state": state,
                "key": key_step,
                "action": action,
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "final": info["final_observation"],
            }
            return (after, state_after), record

        key_reset, key_steps = jax.random.split(key)
        return jax.lax.scan(step, env.reset(key_reset, params), jax.random.split(key_steps, STEPS))[1]

    with jax.numpy_rank_promotion("raise"):
        return jax.jit(jax.vmap(live))(jax.random.split(jax.random.key(1), TASKS), drawn(spec))


@pytest.mark.parametrize("spec", SPECS)
class TestEnvironment:
    def test_is_a_gymnax_environment(self, spec):
        env, params = made(spec).env, pick(drawn(spec), 0)
        assert isinstance(env, Environment)
        assert isinstance(env.observation_space(params), Box)
        actions = env.action_space(params)
        assert isinstance(actions, Discrete | Box)
        assert (actions.n if isinstance(actions, Discrete) else np.prod(actions.shape)) == env.num_actions

    def test_reset_and_step_match_the_spaces(self, spec):
        env, params = made(spec).env, pick(drawn(spec), 0)
        space = env.observation_space(params)

        @jax.jit
        def first_step(params):
            observation, state = env.reset(jax.random.key(1), params)
            return observation, *env.step(jax.random.key(2), state, some_action(env, params), params)

        observation, after, state, reward, terminated, truncated, info = first_step(params)
        for shown in (observation, after, info["final_observation"]):
            assert (shown.shape, shown.dtype) == (space.shape, space.dtype)
        assert (reward.shape, reward.dtype) == ((), jnp.float32)
        assert (terminated.shape, terminated.dtype) == ((), bool)
        assert (truncated.shape, truncated.dtype) == ((), bool)
        assert env.state_space(params).contains(state)

    def test_a_step_among_many_tasks_is_a_step_alone(self, spec):
        lives = round_(spec)
        for index in range(3):
            params, learner_state = pick(drawn(spec), index), pick(lives, (index, index))
            _, _, reward, terminated, truncated, info = made(spec).env.step(
                learner_state["key"], learner_state["state"], learner_state["action"], params
            )
            alone = {
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "final": info["final_observation"],
            }
            jax.tree.map(assert_close, {name: learner_state[name] for name in alone}, alone)

    def test_environments_of_one_task_live_side_by_side(self, spec):
        env, params = made(spec).env, pick(drawn(spec), 0)
        keys = jax.random.split(jax.random.key(1), 4)
        observations, states = jax.eval_shape(jax.vmap(env.reset, (0, None)), keys, params)
        actions = jax.eval_shape(jax.vmap(env.action_space(params).sample), keys)
        after, _, reward, *_ = jax.eval_shape(jax.vmap(env.step, (0, 0, 0, None)), keys, states, actions, params)
        assert after.shape == observations.shape
        assert reward.shape == (4,)

    def test_random_lives_stay_in_the_spaces(self, spec):
        space = made(spec).env.observation_space(pick(drawn(spec), 0))
        for name in ("observation", "final"):
            shown = np.asarray(round_(spec)[name])
            assert np.isfinite(shown).all()
            assert ((shown >= np.asarray(space.low)) & (shown <= np.asarray(space.high))).all()

    def test_no_episode_is_longer_than_the_horizon(self, spec):
        lives = round_(spec)
        for ended in np.asarray(lives["terminated"] | lives["truncated"]):
            ends = np.flatnonzero(ended)
            assert len(ends) >= 2
            assert np.diff(ends, prepend=-1).max() <= made(spec).horizon

    def test_gymnax_wrappers_work(self, spec):
        params = pick(drawn(spec), 0)
        env = LogWrapper(FlattenObservationWrapper(made(spec).env))
        _, state = jax.eval_shape(env.reset, jax.random.key(1), params)
        *_, info = jax.eval_shape(env.step, jax.random.key(2), state, some_action(env, params), params)
        assert "returned_episode_returns" in info

    def test_default_params_make_an_episode(self, spec):
        env = made(spec).env
        observation, state = jax.eval_shape(env.reset, jax.random.key(0))
        after, *_ = jax.eval_shape(env.step, jax.random.key(1), state, some_action(env, env.default_params))
        assert after.shape == observation.shape


@pytest.mark.parametrize("spec", SPECS)
class TestDistribution:
    def test_name_is_the_specification(self, spec):
        assert made(spec).name == spec

    def test_a_task_is_arrays_in_every_split(self, spec):
        for split in made(spec).splits:
            assert all(
                isinstance(leaf, jax.Array) and not leaf.weak_type for leaf in jax.tree.leaves(drawn(spec, split))
            )

    def test_double_precision_elsewhere_leaves_tasks_and_rewards_single(self, spec):
        env = made(spec).env

        def begin(key):
            params = made(spec).sample(key, "test")
            _, state = env.reset(key, params)
            _, _, reward, *_ = env.step(key, state, some_action(env, params), params)
            return params, made(spec).describe(params), reward

        with jax.enable_x64(True):
            dtypes = {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(begin, jax.random.key(0)))}
        assert dtypes <= {jnp.dtype(name) for name in ("float32", "int32", "uint8", "bool")}

    def test_sample_is_a_function_of_its_key(self, spec):
        single = jax.jit(lambda key: made(spec).sample(key, "train"))(jax.random.split(jax.random.key(0), TASKS)[1])
        jax.tree.map(assert_close, pick(drawn(spec), 1), single)
        descriptions = np.unique(jax.jit(jax.vmap(made(spec).describe))(drawn(spec)), axis=0)
        assert (len(descriptions) > 1) != spec.startswith("probe")

    def test_describe_is_float32_of_one_length_and_vmaps(self, spec):
        describe = jax.vmap(made(spec).describe)
        descriptions = [jax.eval_shape(describe, drawn(spec, split)) for split in made(spec).splits]
        assert {(described.ndim, described.dtype) for described in descriptions} == {(2, jnp.dtype("float32"))}
        assert len({described.shape for described in descriptions}) == 1

    def test_train_tasks_are_seen(self, spec):
        assert made(spec).tasks_seen("train") is True

    def test_unknown_split_is_refused(self, spec):
        for refuse in (functools.partial(made(spec).sample, jax.random.key(0)), made(spec).tasks_seen):
            with pytest.raises(UsageError, match=r"^split must be one of .*, got 'tests'\. Did you mean 'test'\?$"):
                refuse("tests")

    def test_environment_is_built_once(self, spec):
        assert jaxmeta_envs.make(spec).env is made(spec).env

    def test_suggested_discount(self, spec):
        assert 0 < made(spec).suggested["agent.discount"] < 1


@pytest.mark.parametrize("spec", WITH_ORACLE)
class TestOracle:
    def test_is_float32_and_vmaps(self, spec):
        returns = jax.eval_shape(jax.vmap(made(spec).oracle), drawn(spec))
        assert (returns.shape, returns.dtype) == ((TASKS,), jnp.float32)

    def test_bounds_what_random_lives_earn(self, spec):
        lives = jax.tree.map(np.asarray, {name: round_(spec)[name] for name in ("reward", "terminated", "truncated")})
        for index, best in enumerate(jax.jit(jax.vmap(made(spec).oracle))(drawn(spec)).tolist()):
            ends = np.flatnonzero(lives["terminated"][index] | lives["truncated"][index]) + 1
            for episode in np.split(lives["reward"][index], ends)[:-1]:
                assert episode.sum() <= best + 1e-5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("grid_navi:size=2", "grid_navi:size must be from 3 to 1000, got 2."),
        ("grid_navi:size=five", "grid_navi:size must be an integer, got 'five'."),
        ("grid_navi:horizon=0", "grid_navi:horizon must be at least 1, got 0."),
        ("grid_navi:goals=splits", "grid_navi:goals must be one of all, split, got 'splits'."),
        (
            "grid_navi:goals=split,holdout=0",
            "grid_navi:holdout must be from 1 to 20, one less than there are goals, got 0.",
        ),
        (
            "grid_navi:goals=split,holdout=21",
            "grid_navi:holdout must be from 1 to 20, one less than there are goals, got 21.",
        ),
        (
            "grid_navi:goals=split,kept=14",
            "grid_navi:kept must be from 0 to 13, one less than the test goals leave, got 14.",
        ),
        ("cartpole:horizon=0", "cartpole:horizon must be from 1 to 1000, got 0."),
        ("cartpole:horizon=1001", "cartpole:horizon must be from 1 to 1000, got 1001."),
        ("cartpole:signs=plane", "cartpole:signs must be one of both, plain, got 'plane'."),
        ("maze:size=6", "maze:size must be odd and at least 5, got 6."),
        ("maze:size=5,horizon=7", "maze:horizon must be at least 8, the moves to the farthest goal, got 7."),
        ("xland:size=4", "xland:size must be from 5 to 1000, got 4."),
        ("xland:horizon=0", "xland:horizon must be at least 1, got 0."),
        ("xland:depth=0", "xland:depth must be from 1 to 4, got 0."),
        ("xland:depth=5", "xland:depth must be from 1 to 4, got 5."),
        ("xland:distractors=-1", "xland:distractors must be from 0 to 8, got -1."),
        ("xland:distractors=9", "xland:distractors must be from 0 to 8, got 9."),
        (
            "xland:size=5",
            "xland:size must leave half of its 9 cells free of the up to 6 objects of a shifted task, got 5.",
        ),
        ("acrobot:horizon=0", "acrobot:horizon must be from 1 to 1000, got 0."),
        ("mountain_car:signs=plane", "mountain_car:signs must be one of both, plain, got 'plane'."),
        ("pendulum:torques=1", "pendulum:torques must be from 2 to 101, or 0 for any torque, got 1."),
        ("reacher:horizon=0", "reacher:horizon must be at least 1, got 0."),
        ("pendulum:torques=102", "pendulum:torques must be from 2 to 101, or 0 for any torque, got 102."),
        ("gymnax:id=Acrobot-v2", "gymnax:id must be one of Acrobot-v1, "),
        ("gymnax:id=Acrobot-v1,vary=link_mass_1", "gymnax:vary must be written FIELD@LOW@HIGH+FIELD@LOW@HIGH, got"),
        ("probe:number=0", "probe:number must be from 1 to 6, got 0."),
        ("probe:number=7", "probe:number must be from 1 to 6, got 7."),
    ],
)
def test_bad_option_is_refused(spec, message):
    with pytest.raises(UsageError) as caught:
        jaxmeta_envs.make(spec)
    assert str(caught.value).startswith(message)
