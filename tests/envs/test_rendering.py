"""How tasks look, by the pixels: what moves changes the picture where it is, and the goal is where the task says."""

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta.core import scenes
from jaxmeta.core.scenes import Episode, Steps
from jaxmeta_envs.bandit.rendering import posterior
from jaxmeta_envs.families import FAMILIES
from jaxmeta_envs.grid_rendering import belief

SPECS = [
    *("grid_navi", "maze", "cartpole", "pendulum", "acrobot", "mountain_car", "reacher", "point_navigation"),
    *("bandit", "gaussian_bandit", "tabular_mdp", "recommender"),
    *("gymnax:id=CartPole-v1,vary=length@0.3@1.0", "gymnax:id=PointRobot-misc", "gymnax:id=MetaMaze-misc"),
    pytest.param("gymnax:id=Asterix-MinAtar,vary=ramp_interval@50@200", marks=pytest.mark.slow),
    pytest.param("xland", marks=pytest.mark.slow),
]
STEPS = 12


def played(tasks, env_params, seed=0):
    """Random actions in a task."""
    states, actions, rewards, successors = [], [], [], []
    key = jax.random.key(seed)
    _, state = tasks.env.reset(key, env_params)
    for index in range(STEPS):
        act_key, step_key = jax.random.split(jax.random.fold_in(key, index))
        action = tasks.env.action_space(env_params).sample(act_key)
        _, after, reward, _, _, info = tasks.env.step(step_key, state, action, env_params)
        states.append(state)
        actions.append(action)
        rewards.append(reward)
        successors.append(info["final_observation"])
        state = after
    stacked = [jax.tree.map(lambda *leaves: np.stack(leaves), *part) for part in (states, actions, rewards, successors)]
    return Episode(Steps(*jax.device_get(stacked)))


def drawn(scene, episode, t):
    """The picture of a moment, [pixels, pixels, 3] uint8, and a function from the task's units to its pixels."""
    figure = Figure(figsize=(3, 3), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    scene.background(axes)
    scene.moment(axes, episode, t)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]

    def at(x, y):
        column, row = axes.transData.transform((x, y))
        return picture[len(picture) - 1 - round(row), round(column)]

    return picture, at


def is_color(pixel, color):
    return np.abs(pixel / 255 - to_rgb(color)).max() < 0.02


def task_of(spec, seed=0):
    tasks = jaxmeta.make_tasks(spec)
    env_params = tasks.sample(jax.random.key(seed), "test")
    return tasks, env_params, tasks.scene(jax.device_get(env_params))


@pytest.mark.parametrize("spec", SPECS)
def test_a_moment_follows_the_steps_and_tasks_look_different(spec):
    if spec == "xland":
        pytest.importorskip("xminigrid")
    tasks, env_params, scene = task_of(spec)
    episode = played(tasks, env_params)
    first, last = (drawn(scene, episode, t)[0] for t in (0, STEPS - 1))
    assert (first != last).any(), "what has happened shows"
    np.testing.assert_array_equal(first, drawn(scene, episode, 0)[0])
    if "Asterix" in spec or spec in ("mountain_car", "xland"):
        return  # their tasks differ in constants and rules, which have no picture
    others = [task_of(spec, seed) for seed in (1, 2)]
    assert any((drawn(other, played(*task), 0)[0] != first).any() for *task, other in others)


@pytest.mark.parametrize("spec", ["grid_navi", "maze"])
def test_the_agent_colours_its_cell_and_the_goal_is_framed_where_the_task_says(spec):
    tasks, env_params, scene = task_of(spec, seed=3)
    episodes = [played(tasks, env_params, seed) for seed in range(8)]
    episode = next(episode for episode in episodes if np.ptp(episode.steps.state.position, axis=0).any())
    places = episode.steps.state.position
    moved = int(np.flatnonzero((places != places[0]).any(axis=1))[0])
    _, before = drawn(scene, episode, 0)
    _, after = drawn(scene, episode, moved)
    assert is_color(before(*places[0]), scenes.AGENT)
    assert not is_color(before(*places[moved]), scenes.AGENT)
    assert is_color(after(*places[moved]), scenes.AGENT)
    x, y = np.asarray(env_params.goal)
    assert is_color(before(x - 0.44, y + 0.3), scenes.GOAL)
    if spec == "maze":
        for y, x in np.argwhere(np.asarray(env_params.walls)):
            assert is_color(before(x + 0.3, y + 0.3), scenes.WALL)


@pytest.mark.parametrize(("spec", "goal"), [("reacher", "goal"), ("point_navigation", "goal")])
def test_a_goal_in_the_plane_is_where_the_task_says(spec, goal):
    for seed in range(3):
        tasks, env_params, scene = task_of(spec, seed)
        _, at = drawn(scene, played(tasks, env_params), 0)
        assert is_color(at(*np.asarray(getattr(env_params, goal))), scenes.GOAL)


def test_the_point_is_drawn_where_it_is():
    tasks, env_params, scene = task_of("point_navigation")
    episode = played(tasks, env_params)
    _, at = drawn(scene, episode, STEPS - 1)
    assert is_color(at(*episode.steps.state.position[-1]), scenes.AGENT)


def test_a_pole_is_as_long_as_the_task_says():
    tasks, env_params, _ = task_of("cartpole")
    episode = played(tasks, env_params)
    for length in (0.3, 1.0):
        scene = tasks.scene(env_params.replace(length=np.float32(length)))
        _, at = drawn(scene, episode, 0)
        x, angle = float(episode.steps.state.x[0]), float(episode.steps.state.theta[0])
        end = 2 * length * np.array([np.sin(angle), np.cos(angle)])
        tip, beyond = (x, 0.0) + 0.97 * end, (x, 0.0) + 1.2 * end
        assert is_color(at(*tip), scenes.AGENT)
        assert not is_color(at(*beyond), scenes.AGENT)


def test_true_means_of_arms_are_where_the_task_says():
    tasks, env_params, scene = task_of("bandit")
    _, at = drawn(scene, played(tasks, env_params), 5)
    assert all(is_color(at(arm + 0.3, mean), scenes.GOAL) for arm, mean in enumerate(np.asarray(env_params.means)))


def test_the_posterior_of_arms_has_the_closed_form():
    actions, rewards = np.array([0, 1, 1, 1]), np.array([1.0, 0.0, 1.0, 1.0])
    mean, interval = posterior(actions, rewards, 3, gaussian=False)
    np.testing.assert_allclose(mean, [2 / 3, 3 / 5, 1 / 2])
    assert (interval[0] < mean).all()
    assert (mean < interval[1]).all()
    mean, interval = posterior(actions, rewards, 3, gaussian=True)
    np.testing.assert_allclose(mean, [1 / 2, 2 / 4, 0])
    np.testing.assert_allclose(np.diff(interval, axis=0)[0] / 2 / 1.6449, [0.5**0.5, 0.5, 1.0], rtol=1e-3)


def test_the_belief_over_goals_is_the_exact_posterior():
    """By enumeration: of every goal, whether a lifetime as this one has been could have happened."""
    tasks, env_params, _ = task_of("grid_navi", seed=1)
    episode, earlier = played(tasks, env_params, seed=5), played(tasks, env_params, seed=6)
    size, goal = tasks.env.size, tuple(np.asarray(env_params.goal).tolist())
    goals = tasks.scene.keywords["goals"]
    episode = episode._replace(earlier=earlier.steps)
    for t in range(STEPS):
        entered = np.concatenate([earlier.steps.next_observation, episode.steps.next_observation[:t]])
        cells = [(int(cell) % size, int(cell) // size) for cell in np.argmax(entered, axis=-1)]
        possible = [
            candidate
            for candidate in map(tuple, goals.tolist())
            if all((cell == candidate) == (cell == goal) for cell in cells)
        ]
        expected = np.zeros((size, size))
        for x, y in possible:
            expected[y, x] = 1 / len(possible)
        np.testing.assert_allclose(belief(episode, t, np.asarray(env_params.goal), goals, size), expected)


def test_every_family_of_our_own_has_a_drawing_but_the_probes():
    without = [name for name in FAMILIES if name not in ("gymnax", "xland") and jaxmeta.make_tasks(name).scene is None]
    assert without == ["probe"]
