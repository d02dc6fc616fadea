"""How a family of a gymnax environment is asked for, and what is refused."""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.core.errors import UsageError
from jaxmeta_envs.from_gymnax.family import environment_of, from_gymnax, gymnax_tasks
from tests import tiers


def test_the_name_is_the_specification_that_makes_it_again():
    tasks = from_gymnax("Acrobot-v1", {"dt": (1e-05, 1e5), "link_moi": (1, 2.5)}, horizon=20)
    family, _, options = tasks.name.partition(":")
    assert family == "gymnax"
    again = gymnax_tasks(**dict(option.split("=") for option in options.split(",") if "horizon" not in option))
    assert again.name == tasks.name.removesuffix(",horizon=20")
    key = jax.random.key(1)
    one, other = tasks.sample(key, "test"), again.sample(key, "test")
    jax.tree.map(np.testing.assert_array_equal, one, other.replace(max_steps_in_episode=one.max_steps_in_episode))


@pytest.mark.parametrize("text", ["dt", "dt@0.1", "dt@0.1@0.2@0.3", "dt@low@high", "dt@0.1@0.2;link_moi@1@2", "+"])
def test_what_varies_is_written_in_one_way(text):
    with pytest.raises(UsageError, match=r"^gymnax:vary must be written FIELD@LOW@HIGH\+FIELD@LOW@HIGH, got '"):
        gymnax_tasks(id="Acrobot-v1", vary=text)


@pytest.mark.parametrize(
    ("env_id", "vary", "message"),
    [
        ("Acrobot", {}, "gymnax:id must be one of Acrobot-v1, "),
        ("Acrobot-v1", {}, "gymnax:vary must name one or more of dt, link_com_pos_1, "),
        ("Acrobot-v1", {"link_mass": (1, 2)}, "gymnax:vary must be one of link_mass_2, link_mass_1, "),
        (
            "Acrobot-v1",
            {"link_length_2": (1, 2)},
            "gymnax:vary must name a parameter that has an effect in Acrobot-v1, got 'link_length_2'.",
        ),
        (
            "SimpleBandit-bsuite",
            {"optimal_return": (1, 2)},
            "gymnax:vary must name a parameter that has an effect in SimpleBandit-bsuite, got 'optimal_return'.",
        ),
        (
            "CartPole-v1",
            {"total_mass": (1, 2)},
            "gymnax:vary must name masscart and masspole in place of what is computed from them, got 'total_mass'.",
        ),
        (
            "Acrobot-v1",
            {"available_torque": (1, 2)},
            "gymnax:vary must name a parameter that is a single number, got 'available_torque'.",
        ),
        (
            "PointRobot-misc",
            {"dense_reward": (0, 1)},
            "gymnax:vary must name a parameter that is a single number, got 'dense_reward'.",
        ),
        (
            "Acrobot-v1",
            {"max_steps_in_episode": (10, 20)},
            "gymnax:vary must leave the time limit to horizon, got 'max_steps_in_episode'.",
        ),
        (
            "Freeway-MinAtar",
            {"player_speed": (1, 2.5)},
            "gymnax:vary player_speed must have whole numbers of at most 1000000000 at its ends, "
            "as the parameter is one, got (1.0, 2.5).",
        ),
        (
            "BernoulliBandit-misc",
            {"reward_prob": (0.1, 0.6)},
            "gymnax:vary reward_prob must lie between 0 and 0.5, got (0.1, 0.6).",
        ),
        ("Acrobot-v1", {"dt": (0.3, 0.1)}, "gymnax:vary dt must have its lowest value below its highest, got "),
        ("Acrobot-v1", {"dt": (0.3, 0.3)}, "gymnax:vary dt must have its lowest value below its highest, got "),
        ("Acrobot-v1", {"dt": (0.1, float("inf"))}, "gymnax:vary dt must be finite, got inf."),
        ("Acrobot-v1", {"dt": (float("nan"), 1.0)}, "gymnax:vary dt must be finite, got nan."),
        ("Acrobot-v1", {"dt": 0.3}, "gymnax:vary dt must be a pair of numbers, the lowest and the highest, got 0.3."),
        ("Acrobot-v1", {"dt": ("0.1", 0.2)}, "gymnax:vary dt must be a number, got '0.1'."),
    ],
)
def test_what_cannot_vary_is_refused(env_id, vary, message):
    with pytest.raises(UsageError) as caught:
        from_gymnax(env_id, vary)
    assert str(caught.value).startswith(message)
    assert str(caught.value).count(". ") <= ("Did you mean" in str(caught.value))


def test_the_nearest_field_is_offered():
    with pytest.raises(UsageError, match=r"Did you mean 'link_mass_1'\?$"):
        from_gymnax("Acrobot-v1", {"linkmass_1": (1, 2)})


@pytest.mark.parametrize("horizon", [0, -1, 10**10, 1.5, True])
def test_a_horizon_out_of_range_is_refused(horizon):
    with pytest.raises(UsageError, match=r"^gymnax:horizon must be "):
        from_gymnax("Reacher-misc", horizon=horizon)


def test_a_field_is_named_once():
    with pytest.raises(UsageError, match=r"^gymnax:vary must name a parameter once, got 'dt'\.$"):
        gymnax_tasks(id="Acrobot-v1", vary="dt@0.1@0.2+dt@0.2@0.3")


@pytest.fixture
def walk(monkeypatch):
    """An environment of its own that is registered at run time, some of whose parameters gymnax could not trace."""

    @struct.dataclass
    class State(environment.EnvState):
        place: jax.Array

    @struct.dataclass
    class Params(environment.EnvParams):
        stride: float = 1.0
        width: float = 2.0
        max_steps_in_episode: int = 5

    class Walk(environment.Environment):
        def __init__(self, forked):
            super().__init__()
            self.forked = forked

        @property
        def default_params(self):
            return Params()

        def step_env(self, key, state, action, params):
            if self.forked and params.width > 1:
                action = -action
            place = state.place + params.stride * action
            state = State(time=state.time + 1, place=place)
            return self.get_obs(state), state, place, jnp.array(False), {}

        def reset_env(self, key, params):
            state = State(time=0, place=jnp.zeros(()))
            return self.get_obs(state), state

        def get_obs(self, state, params=None, key=None):
            return state.place.reshape(1)

        def action_space(self, params=None):
            return spaces.Discrete(2)

        def observation_space(self, params):
            return spaces.Box(-10, 10, (1,), jnp.float32)

    for name, forked in (("Walk-test", False), ("ForkedWalk-test", True)):
        monkeypatch.setitem(gymnax.registration._registry, name, functools.partial(Walk, forked))
    monkeypatch.setattr(gymnax, "registered_envs", [*gymnax.registered_envs, "Walk-test", "ForkedWalk-test"])


def test_an_environment_registered_at_run_time_can_vary(walk):
    tasks = from_gymnax("Walk-test", {"stride": (2.0, 3.0)})
    params = tasks.sample(jax.random.key(0), "train")
    _, state = tasks.env.reset(jax.random.key(1), params)
    assert tasks.env.step(jax.random.key(2), state, jnp.array(1), params)[2] == params.stride
    with pytest.raises(UsageError, match="must name a parameter that has an effect in Walk-test, got 'width'"):
        from_gymnax("Walk-test", {"width": (2.0, 3.0)})


def test_a_parameter_that_cannot_be_traced_is_refused(walk):
    message = (
        "gymnax:id must name an environment whose parameters may be arrays, and this one uses width "
        "as a Python value, got 'ForkedWalk-test'."
    )
    with pytest.raises(UsageError) as caught:
        from_gymnax("ForkedWalk-test", {"stride": (2.0, 3.0)})
    assert str(caught.value) == message


@pytest.mark.parametrize("env_id", ["FrozenLake-misc", *tiers.slow("FourRooms-misc", "DeepSea-bsuite")])
def test_an_environment_first_asked_for_inside_a_trace_outlives_it(env_id):
    environment_of.cache_clear()
    inside = jax.jit(lambda key: from_gymnax(env_id).sample(key, "train"))(jax.random.key(0))
    outside = from_gymnax(env_id).sample(jax.random.key(0), "train")
    jax.tree.map(np.testing.assert_allclose, inside, outside)
