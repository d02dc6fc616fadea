"""Makes any gymnax environment a family of tasks: chosen parameters are drawn from ranges, and the task stays put.

A task is the environment's own `EnvParams` with every leaf an array, those that were named drawn from their range.
What makes a task in gymnax without being a parameter (`known_environments.KEPT`: a goal that every reset draws anew, a
map that an instance is built with) becomes one more parameter, `task`, drawn once and put in place at every reset. The
dynamics, the spaces and the observations are gymnax's own. FourRooms, Reacher and Swimmer show their goal in the
observation; the other tasks must be found out.

Train, validation and test tasks are disjoint. Real parameters come from disjoint cells of the space of their ranges
(`splits`). What else is drawn, whole numbers and kept tasks, has a number, whose remainder modulo six is its class;
it is drawn again until its class is one of the split's. Where there are fewer than six such classes and nothing real
varies, every split holds the same tasks, and `tasks_seen` says so.
"""

import copy
import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment

from jaxmeta.core.errors import NONE, UsageError, Words, as_kind, require, require_known
from jaxmeta.core.types import Key, PyTree, TaskDistribution
from jaxmeta_envs import ranges
from jaxmeta_envs.from_gymnax.dependence import effective_fields, untraceable_fields
from jaxmeta_envs.from_gymnax.known_environments import DERIVED, KEPT, PROBABILITIES, REFUSED, Kept, with_derived
from jaxmeta_envs.from_gymnax.rendering import scene_of
from jaxmeta_envs.ranges import Range
from jaxmeta_envs.splits import CELLS, CLASSES

HORIZON = "max_steps_in_episode"
LARGEST_WHOLE = 10**9
DTYPES = {"b": jnp.bool_, "i": jnp.int32, "u": jnp.int32, "f": jnp.float32}


def as_arrays(params: PyTree) -> PyTree:
    """Parameters with every leaf an array of bool, int32 or float32, whatever the default precision."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, DTYPES[jnp.result_type(leaf).kind]), params)


class FromGymnax(environment.Environment[Any, Any]):
    """A gymnax environment whose task is in its parameters, with rewards of float32.

    It resets itself as gymnax's base class does, also where gymnax's own version carries statistics over, as DeepSea.
    """

    def __init__(self, env_id: str):
        super().__init__()
        self.env_id = env_id
        self.inner, standard = gymnax.make(env_id)
        self.kept: Kept | None = KEPT.get(env_id)
        self._standard = standard
        self.params_class = with_task(type(standard)) if self.kept else type(standard)

    @property
    def standard_params(self) -> PyTree:
        """The parameters that gymnax gives, as arrays, with `task` None where one is kept."""
        given = {name: getattr(self._standard, name) for name in self._standard.__dataclass_fields__}
        switches = dict.fromkeys(self.kept.switches if self.kept else (), True)
        return as_arrays(self.params_class(**given | switches))

    @property
    def default_params(self) -> PyTree:
        """The parameters that gymnax gives, as arrays, with the same kept task every time."""
        return self.with_kept_task(jax.random.key(0), self.standard_params)

    def with_kept_task(self, key: Key, params: PyTree) -> PyTree:
        """The parameters with a task drawn for them, where one is kept."""
        if self.kept is None:
            return params
        if self.kept.draw is not None:
            return params.replace(task=self.kept.draw(self.inner, key, params))
        _, state = self.inner.reset_env(key, params)
        return params.replace(task=as_arrays({name: getattr(state, name) for name in self.kept.fields}))

    def step_env(
        self, key: jax.Array, state: Any, action: int | float | jax.Array, params: Any
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[Any, Any]]:
        """One step as gymnax takes it; the reward is [] float32."""
        observation, state, reward, terminated, info = self.of_task(params).step_env(key, state, action, params)
        return observation, state, jnp.asarray(reward, jnp.float32), terminated, info

    def reset_env(self, key: jax.Array, params: Any) -> tuple[Any, Any]:
        """A reset as gymnax does it, with the task in place of what it drew."""
        env = self.of_task(params)
        key_reset, key_observe = jax.random.split(key)
        observation, state = env.reset_env(key_reset, params)
        if self.kept is None or self.kept.draw is not None:
            return observation, state
        state = state.replace(**params.task)
        return env.observe(key_observe, state, None, params), state

    def of_task(self, params: Any) -> Any:
        """The environment with the attributes that the task sets."""
        if self.kept is None or self.kept.draw is None:
            return self.inner
        inner = copy.copy(self.inner)
        vars(inner).update(params.task)
        return inner

    def observe(self, key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        """The observation, as gymnax has it."""
        return self.of_task(params).observe(key, state, action, params)

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        """The time limit, as gymnax has it."""
        return self.of_task(params).is_truncated(state, params)

    def is_terminated(self, state: Any, params: Any) -> jax.Array:
        """The end of an episode, as gymnax has it."""
        return self.of_task(params).is_terminated(state, params)

    @property
    def name(self) -> str:
        """The name, as gymnax has it."""
        return self.inner.name

    @property
    def num_actions(self) -> int:
        """The number of actions, as gymnax has it."""
        return self.inner.num_actions

    def action_space(self, params: Any = None) -> Any:
        """The action space, as gymnax has it."""
        return self.inner.action_space(self._standard if params is None else params)

    def observation_space(self, params: Any) -> Any:
        """The observation space, as gymnax has it."""
        return self.inner.observation_space(params)

    def state_space(self, params: Any) -> Any:
        """The state space, as gymnax has it."""
        return self.inner.state_space(params)


@functools.cache
def with_task(params_class: type) -> type:
    """A class of parameters with one more field, `task`: what is kept, by name."""
    body = {"__annotations__": {"task": Any}, "task": None, "__doc__": params_class.__doc__, "__module__": __name__}
    return struct.dataclass(type(params_class.__name__, (params_class,), body))


@functools.cache
def environment_of(env_id: str) -> FromGymnax:
    """The environment of an id: one instance each, since gymnax compiles anew for every instance.

    Its constants are real arrays even where it is first read inside a trace, which it outlives.
    """
    with jax.ensure_compile_time_eval():
        return FromGymnax(env_id)


@functools.cache
def traced(env_id: str) -> set[str]:
    """Names of the parameters of an environment that have an effect.

    Raises:
      UsageError: a parameter cannot be traced.
    """
    inner = environment_of(env_id).inner
    prepare = functools.partial(with_derived, env_id)
    try:
        return effective_fields(inner, prepare, as_arrays(inner.default_params))
    except jax.errors.JAXTypeError:
        fields = ", ".join(untraceable_fields(inner, prepare, inner.default_params)) or "a parameter"
        rule = f"name an environment whose parameters may be arrays, and this one uses {fields} as a Python value"
        raise UsageError("gymnax:id", rule, env_id) from None


class Varied(NamedTuple):
    """What is drawn: ranges by name of the parameter."""

    real: dict[str, Range]
    whole: dict[str, Range]
    """Both ends included."""


def from_gymnax(
    env_id: str, vary: Mapping[str, tuple[float, float]] | None = None, *, horizon: int | None = None
) -> TaskDistribution:
    """Makes a gymnax environment a family of tasks.

    Args:
      env_id: the environment's id, one of `gymnax.registered_envs`.
      vary: by name of a field of its `EnvParams`, the lowest and the highest value. A real field is drawn evenly, in
        the logarithm where both ends have the same sign; one that holds a whole number is drawn from the whole numbers
        from the lowest to the highest. May be empty where the environment keeps a task outside its parameters.
      horizon: steps after which an episode is truncated; None takes the environment's own limit.

    Returns:
      The family, without an oracle. It has a split `shifted`, with every real field outside its range and what else is
      drawn from the test split's classes, where real fields vary and none of them is a probability. `describe` tells
      for every field where in its range it lies, 0 at the lowest and 1 at the highest value, and then the kept task.

    Raises:
      UsageError: an unknown environment or one with a single task; a field that is unknown, has no effect, is no single
        number, or follows from others; or a range that is not finite or upside down.

    >>> tasks = from_gymnax("Acrobot-v1", {"link_mass_1": (0.5, 2.0)})
    >>> tasks.name, tasks.horizon, tasks.splits
    ('gymnax:id=Acrobot-v1,vary=link_mass_1@0.5@2.0', 500, ('train', 'validation', 'test', 'shifted'))
    """
    require_known("gymnax:id", env_id, gymnax.registered_envs)
    if env_id in REFUSED:
        raise UsageError(
            "gymnax:id", "name an environment that can vary", Words(f"{env_id!r}, which {REFUSED[env_id]}")
        )
    bounds = {field: ranges.read_range(f"gymnax:vary {field}", pair) for field, pair in (vary or {}).items()}
    if horizon is not None:
        in_range = 1 <= as_kind("gymnax:horizon", horizon, int) <= LARGEST_WHOLE
        require(in_range, "gymnax:horizon", f"be from 1 to {LARGEST_WHOLE}", horizon)

    env = environment_of(env_id)
    varied = _read_fields(env, bounds)
    kept = env.kept
    limit = int(getattr(env.inner.default_params, HORIZON)) if horizon is None else horizon
    classes_of_whole = 1 + sum(int(bounds.high - bounds.low) for bounds in varied.whole.values())
    labelled = (kept is not None and kept.label is not None) or classes_of_whole >= CELLS
    has_shift = bool(varied.real) and not PROBABILITIES.keys() & varied.real.keys()
    splits = (*CLASSES, "shifted") if has_shift else tuple(CLASSES)

    def label(params: PyTree) -> jax.Array:
        steps = [getattr(params, field) - int(bounds.low) for field, bounds in varied.whole.items()]
        total = sum(steps, jnp.zeros((), jnp.int32))
        return total if kept is None or kept.label is None else total + kept.label(params.task, params)

    def propose(key: Key, params: PyTree) -> PyTree:
        key_whole, key_task = jax.random.split(key)
        keys = jax.random.split(key_whole, max(1, len(varied.whole)))
        drawn = {
            field: jax.random.randint(key, (), int(bounds.low), int(bounds.high) + 1, jnp.int32)
            for key, (field, bounds) in zip(keys, varied.whole.items(), strict=False)
        }
        return env.with_kept_task(key_task, with_derived(env_id, params.replace(**drawn)))

    def sample(key: Key, split: str) -> PyTree:
        require_known("split", split, splits)
        key_real, key_first, key_again = jax.random.split(key, 3)
        params = env.standard_params
        params = params.replace(**{HORIZON: jnp.asarray(limit, getattr(params, HORIZON).dtype)})
        if varied.real:
            params = params.replace(**ranges.draw(key_real, split, varied.real))
        classes = jnp.array(CLASSES["test" if split == "shifted" else split])

        def elsewhere(carry: tuple[Key, PyTree]) -> jax.Array:
            return ~jnp.isin(label(carry[1]) % CELLS, classes)

        def again(carry: tuple[Key, PyTree]) -> tuple[Key, PyTree]:
            key_next, key_now = jax.random.split(carry[0])
            return key_next, propose(key_now, params)

        proposed = propose(key_first, params)
        return jax.lax.while_loop(elsewhere, again, (key_again, proposed))[1] if labelled else proposed

    def tasks_seen(split: str) -> bool:
        require_known("split", split, splits)
        return split == "train" or not (labelled or varied.real)

    def describe(params: PyTree) -> jax.Array:
        places = [bounds.place(getattr(params, field)) for field, bounds in varied.real.items()]
        steps = [
            (getattr(params, field) - bounds.low) / (bounds.high - bounds.low) for field, bounds in varied.whole.items()
        ]
        task = jax.tree.leaves(params.task) if kept else []
        return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in (*places, *steps, *task)])

    return TaskDistribution(
        name=_specification(env_id, bounds, horizon),
        env=env,
        sample=sample,
        splits=splits,
        tasks_seen=tasks_seen,
        horizon=limit,
        describe=describe,
        oracle=None,
        suggested={"agent.discount": 0.99},
        scene=scene_of(env_id, env.of_task),
    )


def gymnax_tasks(id: str = "", vary: str = "", horizon: int = 0) -> TaskDistribution:
    """Any gymnax environment, its parameters drawn from ranges: gymnax:id=ID,vary=FIELD@LOW@HIGH+FIELD@LOW@HIGH.

    Args:
      id: the environment's id, one of `gymnax.registered_envs`.
      vary: what is drawn, `FIELD@LOW@HIGH`, one joined to the next by `+`.
      horizon: steps after which an episode is truncated; 0 takes the environment's own limit.

    Raises:
      UsageError: see `from_gymnax`; or `vary` is not written so.

    >>> gymnax_tasks(id="PointRobot-misc", vary="max_force@0.05@0.2+goal_radius@0.1@0.3", horizon=50).horizon
    50
    """
    read = {}
    for part in filter(None, re.split(r"\+(?=[A-Za-z_])", vary)):
        try:
            field, low, high = part.split("@")
            bounds = (float(low), float(high))
        except ValueError:
            raise UsageError("gymnax:vary", "be written FIELD@LOW@HIGH+FIELD@LOW@HIGH", part) from None
        require(field not in read, "gymnax:vary", "name a parameter once", field)
        read[field] = bounds
    return from_gymnax(id, read, horizon=horizon if horizon != 0 else None)


def _read_fields(env: FromGymnax, bounds: Mapping[str, Range]) -> Varied:
    """Checks the fields that vary, and separates real ones from integers."""
    standard, derived = env.inner.default_params, DERIVED.get(env.env_id, {})
    fields = list(standard.__dataclass_fields__)
    varied = Varied({}, {})
    for field in bounds:
        require_known("gymnax:vary", field, fields)
        require(field != HORIZON, "gymnax:vary", "leave the time limit to horizon", field)
        sources = " and ".join(derived[field].sources) if field in derived else ""
        require(not sources, "gymnax:vary", f"name {sources} in place of what is computed from them", field)
    effective = traced(env.env_id)
    kinds = {field: DTYPES[jnp.result_type(getattr(standard, field)).kind] for field in fields}
    possible = [
        field
        for field in fields
        if field in effective - {HORIZON} - derived.keys()
        and np.ndim(getattr(standard, field)) == 0
        and kinds[field] != jnp.bool_
    ]
    for field, pair in bounds.items():
        require(field in effective, "gymnax:vary", f"name a parameter that has an effect in {env.env_id}", field)
        require(field in possible, "gymnax:vary", "name a parameter that is a single number", field)
        if kinds[field] == jnp.int32:
            whole = all(end.is_integer() and abs(end) <= LARGEST_WHOLE for end in pair)
            rule = f"have whole numbers of at most {LARGEST_WHOLE} at its ends, as the parameter is one"
            require(whole, f"gymnax:vary {field}", rule, pair[:])
            varied.whole[field] = pair
            continue
        if field in PROBABILITIES:
            highest = PROBABILITIES[field]
            within = pair.low >= 0 and pair.high <= highest
            require(within, f"gymnax:vary {field}", f"lie between 0 and {highest}", pair[:])
        varied.real[field] = pair
    if not bounds and env.kept is None:
        if not possible:
            raise UsageError("gymnax:id", "name an environment with more than one task", env.env_id)
        rule = f"name one or more of {', '.join(sorted(possible))} for {env.env_id}"
        raise UsageError("gymnax:vary", rule, NONE)
    return varied


def _specification(env_id: str, bounds: Mapping[str, Range], horizon: int | None) -> str:
    """What makes the family again, on the command line too."""
    options = {"id": env_id, "vary": "+".join(f"{field}@{low!r}@{high!r}" for field, (low, high) in bounds.items())}
    options |= {} if horizon is None else {"horizon": horizon}
    return "gymnax:" + ",".join(f"{key}={value}" for key, value in options.items() if value)
