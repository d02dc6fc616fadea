import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxmeta_envs import splits
from jaxmeta_envs.xland import family as subject
from jaxmeta_envs.xland import rules as xland_rules
from tests import tiers
from tests.reference import xland as reference

pytest.importorskip("xminigrid")

from xminigrid.core import goals, rules
from xminigrid.core.constants import TILES_REGISTRY, Colors, Tiles
from xminigrid.core.grid import room
from xminigrid.types import AgentState, RuleSet

TASKS = 2000
KINDS = ("hold", "near", "join")
RULE_KINDS = {1: "hold", 2: "near", 3: "join"}
GOAL_KINDS = {1: "hold", 3: "near", 4: "join"}
SIZE = 5
RED_BALL, BLUE_KEY, GREEN_HEX, RED_STAR = (
    TILES_REGISTRY[shape, color]
    for shape, color in [
        (Tiles.BALL, Colors.RED),
        (Tiles.KEY, Colors.BLUE),
        (Tiles.HEX, Colors.GREEN),
        (Tiles.STAR, Colors.RED),
    ]
)
FLOOR = TILES_REGISTRY[Tiles.FLOOR, Colors.BLACK]
EMPTY = TILES_REGISTRY[Tiles.EMPTY, Colors.EMPTY]
NO_GOAL = goals.EmptyGoal().encode()
UP, RIGHT, DOWN, LEFT = range(4)


@functools.cache
def made(**options):
    return subject.xland(**options)


@functools.cache
def drawn(split, depth=1, count=TASKS):
    """Rule sets of a split as NumPy arrays, leaves [count, ...]."""
    tasks = made(depth=depth)
    params = jax.jit(jax.vmap(lambda key: tasks.sample(key, split)))(jax.random.split(jax.random.key(0), count))
    return jax.tree.map(np.asarray, params)


def pick(batch, index):
    return jax.tree.map(lambda leaf: leaf[index], batch)


def tile(pair):
    return tuple(np.asarray(pair).tolist())


def read_rule(encoding):
    """A rule of the reference from xminigrid's encoding, a list."""
    kind, first, second, third = RULE_KINDS[encoding[0]], *map(tuple, (encoding[1:3], encoding[3:5], encoding[5:7]))
    return reference.Rule(kind, (first, second), third) if kind == "join" else reference.Rule(kind, (first,), second)


def read_goal(encoding):
    kind, first, second = GOAL_KINDS[encoding[0]], tuple(encoding[1:3]), tuple(encoding[3:5])
    return reference.Goal(kind, (first, second) if kind == "join" else (first,))


def read_task(ruleset):
    """Rules and goal of one task."""
    return tuple(map(read_rule, ruleset.rules.tolist())), read_goal(ruleset.goal.tolist())


def read_tasks(rulesets):
    """Rules and goal of every task."""
    return [read_task(RuleSet(*task)) for task in zip(rulesets.goal, rulesets.rules, rulesets.init_tiles, strict=True)]


def read_objects(grid):
    """Where objects lie, as pairs of cell and tile."""
    shapes = {getattr(Tiles, shape) for shape in xland_rules.SHAPES}
    grid = np.asarray(grid)
    return {(cell, tile(grid[cell])) for cell in np.ndindex(grid.shape[:2]) if int(grid[cell][0]) in shapes}


def read_world(state):
    pocket = tile(state.agent.pocket)
    return reference.World(
        position=tile(state.agent.position),
        direction=int(state.agent.direction),
        pocket=None if pocket == tile(EMPTY) else pocket,
        objects=frozenset(read_objects(state.grid)),
    )


def asked(rulesets):
    """What rule sets ask for, whatever the order of the rules and of the two objects of a join."""
    return {
        (
            frozenset((rule.kind, frozenset(rule.objects), rule.product) for rule in chain),
            (goal.kind, frozenset(goal.objects)),
        )
        for chain, goal in read_tasks(rulesets)
    }


def state_of(objects, position, direction, pocket=EMPTY):
    """A moment in a room of 5 x 5, from cells and what lies there."""
    grid = room(SIZE, SIZE)
    for cell, object_tile in objects.items():
        grid = grid.at[cell].set(object_tile)
    agent = AgentState(position=jnp.array(position), direction=jnp.array(direction), pocket=pocket)
    return subject.EnvState(time=jnp.array(0), grid=grid, agent=agent, achieved=jnp.array(False))


def step(state, action, rule=None, goal=NO_GOAL):
    encoding = rules.EmptyRule().encode() if rule is None else rule.encode()
    ruleset = RuleSet(goal=goal, rules=encoding[None], init_tiles=EMPTY[None])
    params = subject.EnvParams(ruleset=ruleset, max_steps_in_episode=jnp.array(10))
    _, state, reward, terminated, _ = quick_step(state, jnp.array(action), params)
    return state, float(reward), bool(terminated)


@jax.jit
def quick_step(state, action, params):
    return subject.environment_of(SIZE).step_env(jax.random.key(0), state, action, params)


class TestRulesByHand:
    def test_what_is_picked_up_turns_in_the_pocket(self):
        before = state_of({(2, 3): RED_BALL}, position=(2, 2), direction=RIGHT)
        after, _, _ = step(before, reference.PICK_UP, rules.AgentHoldRule(RED_BALL, GREEN_HEX))
        assert tile(after.agent.pocket) == tile(GREEN_HEX)
        assert read_objects(after.grid) == set()

    def test_what_is_walked_up_to_turns_where_it_lies(self):
        before = state_of({(1, 2): RED_BALL, (3, 3): RED_STAR}, position=(2, 1), direction=RIGHT)
        after, _, _ = step(before, reference.FORWARD, rules.AgentNearRule(RED_BALL, GREEN_HEX))
        assert tile(after.agent.position) == (2, 2)
        assert read_objects(after.grid) == {((1, 2), tile(GREEN_HEX)), ((3, 3), tile(RED_STAR))}

    @pytest.mark.parametrize("carried", [RED_BALL, BLUE_KEY], ids=["ball", "key"])
    def test_what_is_put_side_by_side_turns_into_one(self, carried):
        lying = BLUE_KEY if carried is RED_BALL else RED_BALL
        before = state_of({(3, 3): lying}, position=(2, 2), direction=RIGHT, pocket=carried)
        after, _, _ = step(before, reference.PUT_DOWN, rules.TileNearRule(RED_BALL, BLUE_KEY, GREEN_HEX))
        assert read_objects(after.grid) == {((3, 3), tile(GREEN_HEX))}
        assert tile(after.grid[2, 3]) == tile(FLOOR)
        assert tile(after.agent.pocket) == tile(EMPTY)

    def test_other_objects_and_other_actions_turn_nothing(self):
        before = state_of({(2, 3): RED_STAR, (1, 2): RED_BALL}, position=(2, 2), direction=RIGHT)
        for rule in (rules.AgentHoldRule(RED_BALL, GREEN_HEX), rules.AgentNearRule(RED_BALL, GREEN_HEX)):
            after, _, _ = step(before, reference.PICK_UP, rule)
            assert tile(after.agent.pocket) == tile(RED_STAR)
            assert read_objects(after.grid) == {((1, 2), tile(RED_BALL))}

    @pytest.mark.parametrize(
        ("goal", "action"),
        [
            (goals.AgentHoldGoal(GREEN_HEX), reference.PICK_UP),
            (goals.AgentNearGoal(GREEN_HEX), reference.FORWARD),
            (goals.TileNearGoal(GREEN_HEX, RED_STAR), reference.PUT_DOWN),
        ],
        ids=KINDS,
    )
    def test_a_goal_is_achieved_by_its_own_action(self, goal, action):
        """The hexagon lies before the agent, beside the star."""
        before = state_of({(2, 3): GREEN_HEX, (1, 3): RED_STAR}, position=(2, 2), direction=RIGHT)
        for tried in range(len(subject.ACTIONS)):
            state, reward, terminated = step(before, tried, goal=goal.encode())
            assert terminated == bool(state.achieved) == (tried == action)
            assert reward == pytest.approx(0.91 * terminated)

    def test_reward_falls_with_time_and_the_last_step_may_both_terminate_and_truncate(self):
        env = subject.environment_of(SIZE)
        ruleset = RuleSet(
            goal=goals.AgentHoldGoal(RED_BALL).encode(),
            rules=rules.EmptyRule().encode()[None],
            init_tiles=jnp.stack([RED_BALL, EMPTY, EMPTY]),
        )
        params = subject.EnvParams(ruleset=ruleset, max_steps_in_episode=jnp.array(10))
        before = state_of({(2, 3): RED_BALL}, position=(2, 2), direction=RIGHT)
        for time, expected in [(0, 0.91), (4, 0.55), (9, 0.1)]:
            met = before.replace(time=jnp.array(time))
            _, _, reward, terminated, truncated, _ = env.step(jax.random.key(0), met, reference.PICK_UP, params)
            assert (float(reward), bool(terminated), bool(truncated)) == (pytest.approx(expected), True, time == 9)
            _, _, reward, terminated, truncated, _ = env.step(jax.random.key(0), met, reference.CLOCKWISE, params)
            assert (float(reward), bool(terminated), bool(truncated)) == (0, False, time == 9)


def test_observation_shows_what_lies_before_the_agent_and_what_it_carries():
    state = state_of({(2, 1): RED_STAR, (1, 2): BLUE_KEY}, position=(3, 2), direction=UP, pocket=GREEN_HEX)
    shown = np.asarray(subject.environment_of(SIZE).get_obs(state)).reshape(subject.VIEW**2 + 1, -1)
    view, pocket = shown[:-1].reshape(subject.VIEW, subject.VIEW, -1), shown[-1]
    names = np.array(["WALL", *xland_rules.SHAPES, *xland_rules.COLORS])
    seen = {cell: set(names[view[cell] > 0]) for cell in np.ndindex(view.shape[:2]) if view[cell].any()}
    walls = {(1, column) for column in range(5)} | {(row, column) for row in range(1, 5) for column in (0, 4)}
    assert seen == {cell: {"WALL"} for cell in walls} | {(3, 1): {"STAR", "RED"}, (2, 2): {"KEY", "BLUE"}}
    assert set(names[pocket > 0]) == {"HEX", "GREEN"}


def test_random_lives_follow_the_reference():
    tasks, steps = made(depth=3, distractors=3), 150

    def live(key):
        key_task, key_reset, key_actions = jax.random.split(key, 3)
        params = tasks.sample(key_task, "train")
        actions = jax.random.randint(key_actions, (steps,), 0, len(subject.ACTIONS))

        def advance(state, action):
            _, after, _, terminated, _ = tasks.env.step_env(key, state, action, params)
            return after, (state, after, terminated)

        return params, actions, jax.lax.scan(advance, tasks.env.reset(key_reset, params)[1], actions)[1]

    lives = jax.jit(jax.vmap(live))(jax.random.split(jax.random.key(0), 12))
    products = 0
    for index in range(12):
        params, actions, records = jax.tree.map(lambda leaf, index=index: np.asarray(leaf)[index], lives)
        parts, goal = read_task(params.ruleset)
        for time, action in enumerate(actions.tolist()):
            before, after, terminated = pick(records, time)
            world, achieved = reference.step(made().env.size, parts, goal, read_world(before), action)
            assert (read_world(after), bool(terminated)) == (world, achieved)
        left = {object_tile for _, object_tile in read_objects(after.grid)}
        products += len(left & {rule.product for rule in parts})
    assert products >= 3


@pytest.mark.parametrize(("split", "depth"), [("train", 1), ("shifted", subject.DEEPEST)])
def test_every_chain_leads_from_what_lies_in_the_room_to_the_goal(split, depth):
    rulesets = drawn(split, depth).ruleset
    for (parts, goal), init_tiles in zip(read_tasks(rulesets), rulesets.init_tiles.tolist(), strict=True):
        assert len(parts) == depth + (split == "shifted")
        placed = [tuple(entry) for entry in init_tiles if any(entry)]
        at_hand = set(placed)
        used = []
        for rule in parts:
            assert at_hand.issuperset(rule.objects)
            assert rule.product not in at_hand
            used += rule.objects
            at_hand = at_hand - set(rule.objects) | {rule.product}
        assert at_hand.issuperset(goal.objects)
        assert goal.objects[0] == parts[-1].product
        assert len(placed) == len(set(placed))
        assert len(used) == len(set(used))
        assert len(set(placed) - set(used) - set(goal.objects)) == 2


ONE_EACH = [("hold", "near"), ("near", "join"), ("join", "hold")]


@pytest.mark.parametrize(
    ("rule_kind", "goal_kind"),
    [*ONE_EACH, *tiers.slow(*(pair for pair in itertools.product(KINDS, KINDS) if pair not in ONE_EACH))],
)
def test_a_plan_for_every_kind_of_task_is_found_and_works(rule_kind, goal_kind):
    """In the smallest room, by exhaustive search, then played to the end of the episode."""
    tasks = made(size=SIZE, horizon=50, distractors=0)
    rulesets = drawn("train").ruleset
    kinds = [
        (RULE_KINDS[rule], GOAL_KINDS[goal])
        for rule, goal in zip(rulesets.rules[:, 0, 0], rulesets.goal[:, 0], strict=True)
    ]
    ruleset = pick(rulesets, kinds.index((rule_kind, goal_kind)))
    ruleset = ruleset.replace(init_tiles=ruleset.init_tiles[:-2])
    params = subject.EnvParams(ruleset=jax.tree.map(jnp.asarray, ruleset), max_steps_in_episode=jnp.array(50))
    for seed in range(2):
        _, state = tasks.env.reset(jax.random.key(seed), params)
        actions = reference.plan(SIZE, *read_task(ruleset), read_world(state))
        assert actions is not None
        outcomes = []
        for action in actions:
            _, state, reward, terminated, truncated, _ = tasks.env.step(jax.random.key(1), state, action, params)
            outcomes.append((float(reward), bool(terminated), bool(truncated)))
        assert outcomes[:-1] == [(0, False, False)] * (len(actions) - 1)
        assert outcomes[-1] == (pytest.approx(1 - 0.9 * len(actions) / 50), True, False)
        assert int(state.time) == 0


def test_the_task_survives_a_reset_and_places_do_not():
    tasks = made(size=SIZE, horizon=1, distractors=0)
    env, params = tasks.env, tasks.sample(jax.random.key(0), "train")
    _, state = env.reset(jax.random.key(0), params)
    placed = sorted(tile(entry) for entry in params.ruleset.init_tiles if tile(entry) != tile(EMPTY))
    worlds = set()
    for seed in range(5):
        world = read_world(state)
        assert sorted(object_tile for _, object_tile in world.objects) == placed
        assert world.pocket is None
        assert world.position not in dict(world.objects)
        worlds.add(world)
        _, state, *_ = env.step(jax.random.key(seed), state, reference.CLOCKWISE, params)
        assert int(state.time) == 0
    assert len(worlds) == 5


@pytest.mark.slow
def test_splits_share_no_rule_set():
    found = {split: asked(drawn(split).ruleset) for split in subject.SPLITS}
    for one, other in itertools.combinations(subject.SPLITS, 2):
        assert found[one].isdisjoint(found[other])
    assert len(found["train"]) > 0.8 * TASKS
    assert len(found["shifted"]) > 0.99 * TASKS


@pytest.mark.parametrize("split", ["train", *tiers.slow("validation", "test")])
def test_tasks_are_of_the_classes_of_their_split(split):
    classes = jax.vmap(xland_rules.classify)(drawn(split).ruleset)
    assert set(classes.tolist()) == set(splits.CLASSES[split])


@pytest.mark.slow
def test_classes_are_equally_likely():
    rulesets = jax.vmap(lambda key: xland_rules.draw_ruleset(key, 1))(jax.random.split(jax.random.key(0), 6000))
    counts = np.bincount(jax.vmap(xland_rules.classify)(rulesets), minlength=splits.CELLS)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.slow
def test_a_class_does_not_depend_on_how_a_rule_set_is_written():
    rulesets = drawn("shifted").ruleset
    joined = (rulesets.rules[:, :, 0] == 3).all(axis=1) & (rulesets.goal[:, 0] == 4)
    rulesets = pick(rulesets, np.flatnonzero(joined)[:30])
    classes = jax.vmap(xland_rules.classify)(rulesets)
    assert len(set(classes.tolist())) == splits.CELLS
    rewritten = rulesets.replace(
        goal=rulesets.goal[:, [0, 3, 4, 1, 2]],
        rules=np.pad(rulesets.rules[:, ::-1, [0, 3, 4, 1, 2, 5, 6]], ((0, 0), (0, 1), (0, 0))),
        init_tiles=np.zeros_like(rulesets.init_tiles),
    )
    np.testing.assert_array_equal(jax.vmap(xland_rules.classify)(rewritten), classes)
    other = rulesets.replace(rules=rulesets.rules[:, :, [0, 1, 2, 5, 6, 3, 4]])
    assert np.mean(jax.vmap(xland_rules.classify)(other) != classes) > 0.5


@pytest.mark.slow
def test_descriptions_tell_rule_sets_apart():
    params = drawn("train")
    described = np.asarray(jax.vmap(made().describe)(params))
    assert described.shape == (TASKS, 5 + 2 * xland_rules.TILE_FEATURES + 2 * (4 + 3 * xland_rules.TILE_FEATURES))
    chains = params.ruleset.rules.reshape(TASKS, -1)
    written = np.unique(np.concatenate([params.ruleset.goal, chains], axis=1), axis=0)
    assert len(np.unique(described, axis=0)) == len(written)


def test_only_train_tasks_are_seen():
    assert [split for split in made().splits if made().tasks_seen(split)] == ["train"]
    assert made().oracle is None
