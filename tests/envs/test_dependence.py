import jax
import jax.numpy as jnp
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta_envs.from_gymnax.dependence import effective_fields, outputs_reached, untraceable_fields


@struct.dataclass
class State(environment.EnvState):
    speed: jax.Array
    place: jax.Array
    regret: jax.Array


@struct.dataclass
class Params(environment.EnvParams):
    start: float = 0.0
    shown: float = 0.0
    acceleration: float = 1.0
    paid: float = 1.0
    wall: float = 5.0
    lost: float = 1.0
    discarded: float = 1.0
    unused: float = 1.0
    forked: float = 1.0
    max_steps_in_episode: int = 10


class Sled(environment.Environment):
    """Every parameter takes another way to what is perceived, or none."""

    def __init__(self, forks):
        super().__init__()
        self.forks = forks

    def step_env(self, key, state, action, params):
        @jax.jit
        def mix(kept, discarded):
            return kept, jnp.zeros(()) * 0

        if self.forks and params.forked > 0:
            action = -action
        acceleration, nothing = mix(params.acceleration, params.discarded)
        state = State(
            time=state.time + 1,
            speed=state.speed + acceleration * action,
            place=state.place + state.speed + nothing,
            regret=state.regret + params.lost,
        )
        observation = jnp.stack([state.place, params.shown])
        return observation, state, params.paid * 1.0, state.place > params.wall, {"regret": state.regret}

    def reset_env(self, key, params):
        state = State(time=0, speed=jnp.zeros(()), place=params.start * 1.0, regret=jnp.zeros(()))
        return jnp.zeros(2), state

    def action_space(self, params=None):
        return spaces.Discrete(2)


def arrays(params):
    return jax.tree.map(jnp.asarray, params)


def unchanged(params):
    return params


def test_a_field_has_an_effect_if_it_reaches_what_is_perceived():
    found = effective_fields(Sled(forks=False), unchanged, arrays(Params()))
    assert found == {"start", "shown", "acceleration", "paid", "wall"}


def test_a_field_may_reach_it_through_another_one():
    def prepare(params):
        return params.replace(paid=params.unused * 2)

    found = effective_fields(Sled(forks=False), prepare, arrays(Params()))
    assert found == {"start", "shown", "acceleration", "unused", "wall"}


def test_a_field_in_a_python_branch_cannot_be_traced():
    with pytest.raises(jax.errors.JAXTypeError):
        effective_fields(Sled(forks=True), unchanged, arrays(Params()))
    assert untraceable_fields(Sled(forks=True), unchanged, Params()) == ["forked"]
    assert untraceable_fields(Sled(forks=False), unchanged, Params()) == []


def test_nested_programs_are_followed_or_taken_whole():
    def program(x, y):
        looped, _ = jax.lax.fori_loop(0, 3, lambda _, carry: (carry[0] + 1, carry[1]), (x, y))
        return jax.jit(lambda a, b: (b, a))(x, y), looped, 2.0

    jaxpr = jax.make_jaxpr(program)(1.0, 2.0).jaxpr
    assert outputs_reached(jaxpr, [True, False]) == [False, True, True, False]
    assert outputs_reached(jaxpr, [False, True])[:2] == [True, False]
