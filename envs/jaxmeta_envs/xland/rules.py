"""Rule sets of XLand: how they are drawn, split, applied and checked. Encoded and played by xminigrid.

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

from jaxmeta.core.errors import NONE, UsageError
from jaxmeta.core.types import Key
from jaxmeta_envs.splits import CELLS, CLASSES

if TYPE_CHECKING:
    from xminigrid.types import AgentState, RuleSet

SHAPES = ("BALL", "SQUARE", "PYRAMID", "KEY", "HEX", "STAR")
COLORS = ("RED", "GREEN", "BLUE", "YELLOW")
"""Every object has one of these shapes and colours, by their names in xminigrid."""
TILE_FEATURES = 1 + len(SHAPES) + len(COLORS)
RULES = ("EmptyRule", "AgentHoldRule", "AgentNearRule", "TileNearRule")
GOALS = ("EmptyGoal", "AgentHoldGoal", "AgentOnTileGoal", "AgentNearGoal", "TileNearGoal")
"""The kinds of rules and goals that occur, at the first number of xminigrid's encoding."""
_JOIN_RULE, _JOIN_GOAL = RULES.index("TileNearRule"), GOALS.index("TileNearGoal")


def load_xminigrid() -> None:
    """Imports xminigrid before anything is traced, since it makes arrays as it loads.

    Raises:
      UsageError: it is not installed.
    """
    try:
        import xminigrid  # noqa: F401
    except ImportError as error:
        rule = "come with the package xminigrid: pip install 'jaxmeta[xland]'"
        raise UsageError("xland", rule, NONE) from error


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


@functools.partial(jax.jit, static_argnames=("split", "depth", "distractors"))
def draw_of_split(key: Key, split: str, depth: int, distractors: int) -> "RuleSet":
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


def classify(ruleset: "RuleSet") -> jax.Array:
    """Class of a rule set, by a hash of its rules, in any order, and its goal.

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


def tile_features(tile: jax.Array) -> jax.Array:
    """Whether a tile, [2] uint8, is wall, and one-hot its shape and its colour, [TILE_FEATURES] float32."""
    from xminigrid.core.constants import Colors, Tiles

    shapes = jnp.array([getattr(Tiles, shape) for shape in ("WALL", *SHAPES)], jnp.uint8)
    colors = jnp.array([getattr(Colors, color) for color in COLORS], jnp.uint8)
    return jnp.append(tile[0] == shapes, tile[1] == colors).astype(jnp.float32)


def apply_rules(
    rules: jax.Array, grid: jax.Array, agent: "AgentState", action: jax.Array, changed: jax.Array
) -> tuple[jax.Array, "AgentState"]:
    """Grid and agent after each rule, [depth, 7] uint8, was applied once; `changed` is the cell acted on, [2] int."""
    from xminigrid.core import rules as library

    def apply(world: tuple[jax.Array, "AgentState"], encoding: jax.Array) -> tuple[Any, None]:
        kinds = [getattr(library, name).decode(encoding) for name in RULES]
        branches = [functools.partial(kind, action=action, position=changed) for kind in kinds]
        return jax.lax.switch(encoding[0], branches, *world), None

    return jax.lax.scan(apply, (grid, agent), rules)[0]


def check_goal(
    goal: jax.Array, grid: jax.Array, agent: "AgentState", action: jax.Array, changed: jax.Array
) -> jax.Array:
    """Whether an action achieved the goal, [5] uint8; [] bool."""
    from xminigrid.core import goals as library

    kinds = [getattr(library, name).decode(goal) for name in GOALS]
    branches = [functools.partial(kind, action=action, position=changed) for kind in kinds]
    return jax.lax.switch(goal[0], branches, grid, agent)


def _objects() -> jax.Array:
    """Every object that can occur, [shapes x colours, 2] uint8."""
    from xminigrid.core.constants import Colors, Tiles

    objects = [(getattr(Tiles, shape), getattr(Colors, color)) for shape in SHAPES for color in COLORS]
    return jnp.array(objects, jnp.uint8)


def _scrambled(bits: jax.Array) -> jax.Array:
    """A bijection of uint32 under which every bit depends on every other: MurmurHash3's finaliser."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
