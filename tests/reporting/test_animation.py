"""Animations: what is recorded is what evaluation measures, and files of each kind are written."""

import base64
import functools
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxmeta
from jaxmeta.algorithms.registry import make_learner
from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import TaskDistribution
from jaxmeta.evaluation import lifetimes
from jaxmeta.reporting import animation

SMALL = "grid_navi:size=3,horizon=4"
QUICK = {"num_envs": 2, "num_adaptations": 2, "hidden": (4,), "tasks_per_batch": 2}


@functools.cache
def recorded(algorithm="maml"):
    tasks = jaxmeta.make_tasks(SMALL)
    settings = QUICK if algorithm == "maml" else {"num_adaptations": 2, "tasks_per_batch": 2, "minibatches": 1}
    learner = make_learner(algorithm, tasks, settings)
    meta = learner.meta(learner.init(jax.random.key(0)))
    env_params = tasks.sample(jax.random.key(1), "test")
    scene = tasks.scene(jax.device_get(env_params))
    key = jax.random.key(2)
    return tasks, learner, meta, env_params, key, lifetimes.record(key, learner, meta, tasks, env_params, scene)


@pytest.mark.parametrize("algorithm", ["maml", "rl2"])
def test_recording_changes_nothing_of_a_lifetime(algorithm):
    """Step for step what the engine does with the same keys, without a record."""
    tasks, learner, meta, env_params, key, episodes = recorded(algorithm)
    runner, lifetime = Runner(tasks.env, learner.adapter), learner.lifetime
    task_key, reset_key, first_key, adapt_key = jax.random.split(key, 4)
    task = learner.task(task_key, env_params)

    def play(key, state):
        return runner.evaluate_policy(key, meta, task, state, 1, tasks.horizon)

    @jax.jit
    def run():
        start = runner.reset(reset_key, meta, task, lifetime.num_envs)
        observe = lambda key, round_: (round_.rollout, play(key, round_.after))  # noqa: E731
        return play(first_key, start), runner.adapt_for(adapt_key, meta, task, start, lifetime, observe)[1]

    before, (rollouts, after) = run()
    assert len(episodes) == lifetime.num_adaptations + 1
    np.testing.assert_array_equal(episodes[0].steps.action, before.action[:, 0])
    np.testing.assert_allclose(episodes[0].total, before.episode_return[0], rtol=1e-6)
    for index, episode in enumerate(episodes[1:]):
        np.testing.assert_array_equal(episode.steps.action, after.action[index, :, 0])
        assert episode.earlier is not None
        assert len(episode.earlier.reward) == (index + 1) * lifetime.rollout_length * lifetime.num_envs
        np.testing.assert_array_equal(episode.earlier.reward, np.asarray(rollouts.reward[: index + 1]).reshape(-1))
    places = [np.argmax(row) for row in before.percept.observation[:, 0]]
    np.testing.assert_array_equal(episodes[0].steps.state.position @ [1, tasks.env.size], places)


def test_action_values_are_those_of_the_learner_after_each_round():
    tasks, learner, _, _, _, episodes = recorded("maml")
    assert all(episode.values.shape == (tasks.env.size**2,) for episode in episodes)
    assert not np.array_equal(episodes[0].values, episodes[-1].values)
    assert all(episode.values is None for episode in recorded("rl2")[-1])
    assert learner.name == "maml"


@pytest.fixture(scope="module")
def moving():
    tasks, learner, meta, *_ = recorded("maml")
    return animation.animate(learner, meta, tasks, task=3, name="maml")


def test_panels_play_in_step_and_show_the_return_so_far(moving):
    figure, draw = moving._figure()
    draw(len(moving.frames) - 1)
    titles = [axes.get_title() for axes in figure.axes]
    captions = ["before adaptation", "after 1 adaptation", "after 2 adaptations"]
    assert [title.split("\n")[0] for title in titles] == captions
    for title, (_, episode) in zip(titles, moving.episodes, strict=True):
        assert title.endswith(f"return {episode.total:.1f}")
    draw(0)
    assert figure.axes[0].get_title().endswith(f"return {moving.episodes[0][1].steps.reward[0]:.1f}")


def test_a_gif_moves_and_another_task_gives_another(moving, tmp_path):
    shares = []
    moving.save(tmp_path / "one.gif", shares.append)
    with Image.open(tmp_path / "one.gif") as picture:
        frames = []
        for index in range(picture.n_frames):
            picture.seek(index)
            frames.append(np.asarray(picture.convert("RGB")))
    assert any((frame != frames[0]).any() for frame in frames)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    tasks, learner, meta, *_ = recorded("maml")
    animation.animate(learner, meta, tasks, task=8, name="maml").save(tmp_path / "two.gif")
    assert (tmp_path / "one.gif").read_bytes() != (tmp_path / "two.gif").read_bytes()
    assert "data:image/gif;base64," in moving._repr_html_()
    assert repr(moving).startswith("Animation(maml in grid_navi, 3 episodes, ")


@pytest.mark.slow
def test_a_page_holds_its_frames_and_fetches_nothing_and_a_still_is_the_end(moving, tmp_path):
    page = moving.save(tmp_path / "page.html").read_text()
    frames = json.loads(re.search(r"const frames = (\[.*?\]),", page)[1])
    assert len(frames) == len(moving.frames)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(frame))).convert("RGB")) for frame in frames]
    assert (pictures[0] != pictures[-1]).any()
    assert "//" not in re.sub(r"const frames = .*", "", page)
    with Image.open(moving.save(tmp_path / "still.png")) as still:
        assert still.width > still.height
        np.testing.assert_array_equal(np.asarray(still.convert("RGB")), pictures[-1])


def test_long_episodes_skip_steps_and_keep_the_last():
    tasks, *_, episodes = recorded("maml")
    long = episodes[0]._replace(steps=jax.tree.map(lambda leaf: np.repeat(leaf, 100, axis=0), episodes[0].steps))
    frames = animation.Animation("long", tasks.scene(jax.tree.map(np.asarray, recorded()[3])), [("", long)]).frames
    assert frames[0] == 0
    assert frames[-1] == 399
    assert len(frames) <= animation.MOST_FRAMES + 1


def test_a_bandit_is_drawn_as_one_lifetime():
    tasks = jaxmeta.make_tasks("bandit:arms=3,pulls=6")
    learner = make_learner("rl2", tasks, {"tasks_per_batch": 2, "minibatches": 1})
    shown = animation.animate(learner, learner.meta(learner.init(jax.random.key(0))), tasks, name="rl2")
    assert len(shown.episodes) == 1
    assert len(shown.episodes[0][1].steps.reward) == 6


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("rl2-maze", "--out must be given a value, got none."),
        ("rl2-maze --out a.svg", "--out must end in one of .gif, .html, .mp4, .png, got 'a.svg'."),
        ("rl2-maze --out none/a.gif", "--out must be a file in a folder that exists, got 'none/a.gif'."),
        ("--out a.gif", "jaxmeta show must be given either RUN_DIR or PRETRAINED, got none."),
        ("rl2-maze --out a.gif --task -1", "--task must be an integer from 0 to 2147483647, got '-1'."),
        ("rl2-maze --out a.gif --split dev", "split must be one of shifted, test, train, validation, got 'dev'."),
        ("rl2-maze --out a.gif --member 1", "member must be from 0 to 0, got 1."),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_written(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["show", *words.split()]) == USAGE_STATUS
    assert capsys.readouterr().err.startswith(sentence.split(", got")[0])
    assert not list(tmp_path.iterdir())


def test_families_without_a_drawing_and_videos_without_ffmpeg_are_refused(monkeypatch, tmp_path):
    with pytest.raises(jaxmeta.UsageError, match=r"^tasks must be a family with a drawing .*, got 'probe"):
        animation.require_drawn(jaxmeta.make_tasks("probe"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(jaxmeta.UsageError, match=r"^--out must end in \.gif or \.html where no ffmpeg is found"):
        animation.require_kind(tmp_path / "a.mp4")


def test_a_users_own_family_has_no_drawing_unless_it_says_so():
    assert TaskDistribution(env=None, sample=lambda key, split: jnp.zeros(()), horizon=1).scene is None


def test_a_run_shows_itself(tmp_path):
    run = jaxmeta.train("maml", SMALL, QUICK, meta_steps=1, show_progress=False)
    shown = run.show(tmp_path / "a.png", task=1)
    assert (tmp_path / "a.png").exists()
    assert len(shown.episodes) == 3
