"""XLand: a small world of objects with hidden production rules and a hidden goal, on XLand-MiniGrid.

A task is a rule set: a chain of rules that turn objects into others, a goal about the last product, and the objects
that an episode starts with. It is drawn here, inside `jit`, and encoded and played by `xminigrid` (Nikulin et al. 2023,
XLand-MiniGrid, arXiv 2312.12044), an optional dependency, needed only once a task distribution is made.

    rule   hold   a source that is picked up becomes the product in the pocket
           near   a source that the agent walks up to becomes the product where it lies
           join   source and partner put side by side become the product
    goal   hold   pick the product up
           near   walk up to it
           join   put it beside another object, or the other way round

**Every task can be achieved.** The source of the first rule lies in the room at the start of every episode. That of
every other rule is the product of the one before it, and the goal is about the last product. Partners lie in the room
from the start. All these objects and the distractors differ from each other, so no rule uses up what another rule or
the goal needs: whatever happens, the chain only moves forward. At least half of the room is free, and the agent can
lift what stands in its way and put it down behind itself, so it gets everywhere, given time.
"""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.base import Key, TaskDistribution
from jaxmeta.errors import UsageError, require, require_known
from jaxmeta_envs.splits import CELLS, CLASSES, only_train_seen

if TYPE_CHECKING:
    from xminigrid.types import AgentState, RuleSet

SHAPES = ("BALL", "SQUARE", "PYRAMID", "KEY", "HEX", "STAR")
COLORS = ("RED", "GREEN", "BLUE", "YELLOW")
"""Every object has one of these shapes and colours, by their names in xminigrid."""
ACTIONS = ("move forward", "turn clockwise", "turn counterclockwise", "pick up", "put down")
"""The actions of xminigrid without its last, which opens doors: there are none."""
VIEW = 5
"""Cells along a side of what the agent sees: the square before it, its own cell in the middle of the nearest row."""
TILE_FEATURES = 1 + len(SHAPES) + len(COLORS)
DEEPEST = 4
"""Longest chain that can be asked for; shifted tasks have one rule more."""
SPLITS = (*CLASSES, "shifted")

_RULES = ("EmptyRule", "AgentHoldRule", "AgentNearRule", "TileNearRule")
_GOALS = ("EmptyGoal", "AgentHoldGoal", "AgentOnTileGoal", "AgentNearGoal", "TileNearGoal")
"""The kinds of rules and goals that occur, at the number that xminigrid's encoding begins with."""
_JOIN_RULE, _JOIN_GOAL = _RULES.index("TileNearRule"), _GOALS.index("TileNearGoal")


@struct.dataclass
class EnvState(environment.EnvState):
    """One moment of an episode."""

    time: Any
    """[] int32, steps taken in this episode."""
    grid: jax.Array
    """[size, size, 2] uint8, shape and colour in every cell, by xminigrid's numbers."""
    agent: "AgentState"
    """xminigrid's: position [2] int as (row, column), direction [] int as up, right, down, left, pocket [2] uint8."""
    achieved: jax.Array
    """[] bool, whether the step that led here achieved the goal."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """One task."""

    max_steps_in_episode: Any = 100
    """[] int32, steps after which an episode is truncated."""
    ruleset: "RuleSet" = struct.field(default_factory=lambda: draw_ruleset(jax.random.key(0), depth=1))
    """xminigrid's: goal [5] uint8, rules [depth, 7] uint8, init_tiles [objects, 2] uint8, padded with empty tiles."""


class XLand(environment.Environment[EnvState, EnvParams]):
    """A walled room with objects in random places, and an agent in another, looking in a random direction.

    The step that achieves the goal ends the episode with a reward of 1 - 0.9 t / `max_steps_in_episode`, t steps after
    its start. All other rewards are 0. An episode is truncated after `max_steps_in_episode` steps.

    Rules and goals of the kinds named at the top are played, in xminigrid's own encoding; its other kinds, which mind
    the side on which objects lie, would make every step slower.

    Raises:
      UsageError: xminigrid is not installed.
    """

    def __init__(self, size: int = 7):
        super().__init__()
        load_xminigrid()
        self.size = size

    @property
    def default_params(self) -> EnvParams:
        """Some task with a single rule."""
        return EnvParams()

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Acts, then applies every rule once, in their order, then looks at the goal; deterministic."""
        from xminigrid.core.actions import take_action

        action = jnp.asarray(action, jnp.int32)
        grid, agent, changed = take_action(state.grid, state.agent, action)
        grid, agent = _apply_rules(params.ruleset.rules, grid, agent, action, changed)
        achieved = _check_goal(params.ruleset.goal, grid, agent, action, changed)
        state = EnvState(time=state.time + 1, grid=grid, agent=agent, achieved=achieved)
        elapsed = jnp.asarray(state.time / params.max_steps_in_episode, jnp.float32)
        reward = jnp.where(achieved, 1 - 0.9 * elapsed, 0).astype(jnp.float32)
        info = {"discount": self.discount(state, params)}
        return self.get_obs(state), state, reward, self.is_terminated(state, params), info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Puts the task's objects and the agent into different cells, uniformly."""
        from xminigrid.core.constants import TILES_REGISTRY, Colors, Tiles
        from xminigrid.core.grid import room
        from xminigrid.types import AgentState

        key_cells, key_direction = jax.random.split(key)
        inside = np.argwhere(np.ones((self.size - 2, self.size - 2))) + 1
        cells = jax.random.permutation(key_cells, jnp.asarray(inside, int))
        objects = params.ruleset.init_tiles
        floor = jnp.full_like(objects, TILES_REGISTRY[Tiles.FLOOR, Colors.BLACK])
        padding = objects[:, :1] == Tiles.EMPTY
        rows, columns = cells[: len(objects)].T
        state = EnvState(
            time=jnp.zeros((), jnp.int32),
            grid=room(self.size, self.size).at[rows, columns].set(jnp.where(padding, floor, objects)),
            agent=AgentState(position=cells[len(objects)], direction=jax.random.randint(key_direction, (), 0, 4)),
            achieved=jnp.zeros((), bool),
        )
        return self.get_obs(state), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """What the agent sees and what it carries, [(VIEW * VIEW + 1) * TILE_FEATURES] float32: neither rules nor goal.

        Row after row of the view from the farthest to the agent's own, from left to right, then the pocket; of each
        tile whether it is wall, and one-hot its shape and its colour. Floor is all zeros, and so is an empty pocket.
        """
        from xminigrid.core.observation import transparent_field_of_view

        view = transparent_field_of_view(state.grid, state.agent, VIEW, VIEW)
        tiles = jnp.concatenate([view.reshape(-1, 2), state.agent.pocket[None]])
        return jax.vmap(_tile_features)(tiles).ravel()

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the goal was achieved, [] bool."""
        return state.achieved

    @property
    def num_actions(self) -> int:
        """Forward, two turns, pick up, put down."""
        return len(ACTIONS)

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Indices of `ACTIONS`."""
        return spaces.Discrete(len(ACTIONS))

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """The features of every cell in view, and of the pocket."""
        return spaces.Box(0.0, 1.0, ((VIEW**2 + 1) * TILE_FEATURES,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Time, grid, agent, and whether the goal was achieved."""
        agent = {
            "position": spaces.Box(1, self.size - 2, (2,), jnp.int32),
            "direction": spaces.Discrete(4),
            "pocket": spaces.Box(0, 255, (2,), jnp.uint8),
        }
        return spaces.Dict(
            {
                "time": spaces.Box(0, params.max_steps_in_episode, (), jnp.int32),
                "grid": spaces.Box(0, 255, (self.size, self.size, 2), jnp.uint8),
                "agent": spaces.Dict(agent),
                "achieved": spaces.Discrete(2),
            }
        )


environment_of = functools.cache(XLand)
"""The environment of a size: one instance each, since gymnax compiles anew for every instance."""


def load_xminigrid() -> None:
    """Imports xminigrid before anything is traced, since it makes arrays as it loads.

    Raises:
      UsageError: it is not installed.
    """
    try:
        import xminigrid  # noqa: F401
    except ImportError as error:
        raise UsageError("xland needs the package xminigrid: pip install 'jaxmeta[xland]'.") from error


@functools.partial(jax.jit, static_argnames=("depth", "distractors"))
def draw_ruleset(key: Key, depth: int, distractors: int = 0) -> "RuleSet":
    """Draws a rule set that can be achieved, of whatever split.

    The kinds of rules and goal are uniform, and so are the objects among those that differ from each other.

    Args:
      key: a PRNG key.
      depth: number of rules in the chain, at least 1; static.
      distractors: number of objects that no rule and no goal is about; static.

    Returns:
      The rule set: goal [5] uint8, rules [depth, 7] uint8, init_tiles [depth + 2 + distractors, 2] uint8. The last are
      the first source, the partner of every rule and of the goal (an empty tile where it needs none), and distractors.
    """
    from xminigrid.core import goals, rules
    from xminigrid.types import RuleSet

    key_objects, key_rules, key_goal = jax.random.split(key, 3)
    objects = jax.random.permutation(key_objects, _objects())
    chain, partners, others = jnp.split(objects, [depth + 1, 2 * depth + 2])
    rule_kinds = jax.random.randint(key_rules, (depth,), 0, 3)
    goal_kind = jax.random.randint(key_goal, (), 0, 3)

    def rule(kind: jax.Array, source: jax.Array, partner: jax.Array, product: jax.Array) -> jax.Array:
        encodings = [
            rules.AgentHoldRule(source, product).encode(),
            rules.AgentNearRule(source, product).encode(),
            rules.TileNearRule(source, partner, product).encode(),
        ]
        return jnp.stack(encodings)[kind]

    def goal(kind: jax.Array, product: jax.Array, partner: jax.Array) -> jax.Array:
        encodings = [
            goals.AgentHoldGoal(product).encode(),
            goals.AgentNearGoal(product).encode(),
            goals.TileNearGoal(product, partner).encode(),
        ]
        return jnp.stack(encodings)[kind]

    joins = jnp.append(rule_kinds, goal_kind) == 2
    needed = jnp.where(joins[:, None], partners, jnp.zeros_like(partners))
    return RuleSet(
        goal=goal(goal_kind, chain[-1], partners[-1]),
        rules=jax.vmap(rule)(rule_kinds, chain[:-1], partners[:-1], chain[1:]),
        init_tiles=jnp.concatenate([chain[:1], needed, others[:distractors]]),
    )


def classify(ruleset: "RuleSet") -> jax.Array:
    """Class of a rule set, by a hash of what it asks for: its rules in whatever order, and its goal.

    The two objects of a join may be swapped, rules reordered, empty rules added and distractors exchanged: the class
    stays the same.

    Args:
      ruleset: goal [5] uint8, rules [depth, 7] uint8; the objects at the start are not looked at.

    Returns:
      The class, [] int32 in 0 to 5; `jaxmeta_envs.splits.CLASSES` says which split it belongs to.
    """

    def packed(encoding: jax.Array, join: int) -> jax.Array:
        """A rule or goal in 32 bits, without loss: a byte for its kind, and one for every object."""
        objects = encoding[1:].reshape(-1, 2).astype(jnp.uint32)
        objects = objects[:, 0] * 16 + objects[:, 1]
        pair, rest = objects[:2], objects[2:]
        pair = jnp.where(encoding[0] == join, jnp.sort(pair), pair)
        code = encoding[0].astype(jnp.uint32)
        for byte in (*pair, *rest):
            code = code * 256 + byte
        return code

    rules = jax.vmap(functools.partial(packed, join=_JOIN_RULE))(ruleset.rules)
    total = jnp.sum(_scrambled(rules), dtype=jnp.uint32) + _scrambled(~packed(ruleset.goal, _JOIN_GOAL))
    return (_scrambled(total) % CELLS).astype(jnp.int32)


def describe(params: EnvParams, depth: int) -> jax.Array:
    """The goal and up to `depth` rules: kinds one-hot, then the features of their objects as in an observation.

    Args:
      params: the task, with at most `depth` rules.
      depth: rules to make room for; static.

    Returns:
      [5 + 2 TILE_FEATURES + depth (4 + 3 TILE_FEATURES)] float32; zeros in place of absent rules and objects.
    """
    goal, rules = params.ruleset.goal, params.ruleset.rules

    def features(encoding: jax.Array, kinds: int) -> jax.Array:
        kind = jax.nn.one_hot(encoding[0], kinds, dtype=jnp.float32)
        return jnp.append(kind, jax.vmap(_tile_features)(encoding[1:].reshape(-1, 2)).ravel())

    chain = jax.vmap(functools.partial(features, kinds=len(_RULES)))(rules)
    chain = jnp.pad(chain, ((0, depth - len(rules)), (0, 0)))
    return jnp.append(features(goal, len(_GOALS)), chain.ravel())


def xland(size: int = 7, horizon: int = 100, depth: int = 1, distractors: int = 2) -> TaskDistribution:
    """Find out what objects turn into and which one is wanted; the rule set is the task (Nikulin et al. 2023).

    At `depth=1` there are 166,152 rule sets, distractors not counted, and over a hundred times as many with each rule
    more. Train, validation and test tasks differ in the class of their rules and goal (`classify`), whatever the
    distractors. Shifted ones have one rule more. There is no oracle: the best return would take a search through all
    that an episode can come to.

    Args:
      size: cells along a side of the grid, its walls included, at least 5.
      horizon: steps of an episode, at least 1.
      depth: rules in the chain from the first object to the goal's, from 1 to 4.
      distractors: objects that no rule is about, from 0 to 8.

    Raises:
      UsageError: an option out of range, more objects than the grid has room for, or xminigrid is not installed.
    """
    require(size >= 5, "xland:size", "be at least 5", size)
    require(horizon >= 1, "xland:horizon", "be at least 1", horizon)
    require(1 <= depth <= DEEPEST, "xland:depth", f"be from 1 to {DEEPEST}", depth)
    require(0 <= distractors <= 8, "xland:distractors", "be from 0 to 8", distractors)
    most = depth + 3 + distractors
    room = f"leave half of its {(size - 2) ** 2} cells free of the up to {most} objects of a shifted task"
    require(2 * most <= (size - 2) ** 2, "xland:size", room, size)
    load_xminigrid()

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        steps = jnp.array(horizon, jnp.int32)
        if split == "shifted":
            ruleset = draw_ruleset(key, depth + 1, distractors)
        else:
            ruleset = _draw_of_split(key, split, depth, distractors)
        return EnvParams(max_steps_in_episode=steps, ruleset=ruleset)

    return TaskDistribution(
        name="xland",
        env=environment_of(size),
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=horizon,
        describe=functools.partial(describe, depth=depth + 1),
        oracle=None,
        suggested={"discount": 0.97},
    )


@functools.partial(jax.jit, static_argnames=("split", "depth", "distractors"))
def _draw_of_split(key: Key, split: str, depth: int, distractors: int) -> "RuleSet":
    """Draws rule sets until one is of a class of the split: six on average for a split of one class."""
    classes = jnp.array(CLASSES[split], jnp.int32)

    def redraw(carry: tuple[jax.Array, "RuleSet"]) -> tuple[jax.Array, "RuleSet"]:
        attempt = carry[0] + 1
        return attempt, draw_ruleset(jax.random.fold_in(key, attempt), depth, distractors)

    def is_outside(carry: tuple[jax.Array, "RuleSet"]) -> jax.Array:
        attempt, ruleset = carry
        return (attempt == 0) | jnp.all(classify(ruleset) != classes)

    nothing = jax.eval_shape(redraw, (jnp.zeros((), jnp.int32), None))
    return jax.lax.while_loop(is_outside, redraw, jax.tree.map(jnp.zeros_like, nothing))[1]


def _objects() -> jax.Array:
    """Every object that can occur, [shapes x colours, 2] uint8."""
    from xminigrid.core.constants import Colors, Tiles

    objects = [(getattr(Tiles, shape), getattr(Colors, color)) for shape in SHAPES for color in COLORS]
    return jnp.array(objects, jnp.uint8)


def _tile_features(tile: jax.Array) -> jax.Array:
    """Whether a tile, [2] uint8, is wall, and one-hot its shape and its colour, [TILE_FEATURES] float32."""
    from xminigrid.core.constants import Colors, Tiles

    shapes = jnp.array([getattr(Tiles, shape) for shape in ("WALL", *SHAPES)], jnp.uint8)
    colors = jnp.array([getattr(Colors, color) for color in COLORS], jnp.uint8)
    return jnp.append(tile[0] == shapes, tile[1] == colors).astype(jnp.float32)


def _apply_rules(
    rules: jax.Array, grid: jax.Array, agent: "AgentState", action: jax.Array, changed: jax.Array
) -> tuple[jax.Array, "AgentState"]:
    """Grid and agent after each rule, [depth, 7] uint8, was applied once; `changed` is the cell acted on, [2] int."""
    from xminigrid.core import rules as library

    def apply(world: tuple[jax.Array, "AgentState"], encoding: jax.Array) -> tuple[Any, None]:
        kinds = [getattr(library, name).decode(encoding) for name in _RULES]
        branches = [functools.partial(kind, action=action, position=changed) for kind in kinds]
        return jax.lax.switch(encoding[0], branches, *world), None

    return jax.lax.scan(apply, (grid, agent), rules)[0]


def _check_goal(
    goal: jax.Array, grid: jax.Array, agent: "AgentState", action: jax.Array, changed: jax.Array
) -> jax.Array:
    """Whether an action achieved the goal, [5] uint8; [] bool."""
    from xminigrid.core import goals as library

    kinds = [getattr(library, name).decode(goal) for name in _GOALS]
    branches = [functools.partial(kind, action=action, position=changed) for kind in kinds]
    return jax.lax.switch(goal[0], branches, grid, agent)


def _scrambled(bits: jax.Array) -> jax.Array:
    """A bijection of uint32 under which every bit depends on every other: MurmurHash3's finaliser."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
