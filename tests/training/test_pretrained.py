"""Pretrained learners: those that come with the library, and what becomes of a damaged one."""

import json
import shutil

import jax
import numpy as np
import pytest

import jaxmeta
from jaxmeta.cli.main import main
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation import measurement
from jaxmeta.training import checkpoints, jobs, pretrained
from jaxmeta.training import seeds as multi_seed
from tests import tiers
from tests.conftest import TINY, tiny

LIMIT = 2_000_000
"""Bytes of all that ships."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with one artefact, of the second of two members, and the run it came from."""
    folder = tmp_path_factory.mktemp("artefacts")
    algorithm = "meta_sgd" if tiers.is_full() else "reptile"
    settings = tiny(algorithm, {"meta_steps": 2})
    jaxmeta.train(algorithm, "grid_navi:size=3,horizon=4", settings, seeds=(1, 2), run_dir=folder / "run")
    learner, state, _, config = jobs.restore(folder / "run")
    chosen = multi_seed.config_of(config, multi_seed.members_of(config)[1])
    member = multi_seed.members(state)[1]
    pretrained.save(folder / "home" / "small", learner, member, chosen, summary="A test.", commands=[], figures={})
    return folder / "home"


def test_what_was_saved_is_what_adapts(home):
    assert pretrained.available(home) == {"small": "A test."}
    learner, state, _, config = pretrained.load("small", home)
    trained, states, *_ = jobs.restore(home.parent / "run")
    expected = trained.meta(multi_seed.members(states)[1])
    assert checkpoints.state_digest(learner.meta(state)) == checkpoints.state_digest(expected)
    assert (config["seed"], state.steps_taken) == (2, 2)


@pytest.mark.slow
def test_what_was_saved_is_evaluated_as_the_member_that_it_was(home):
    learner, state, tasks, config = pretrained.load("small", home)
    reported = evaluation.evaluate(learner, state, tasks, config, num_tasks=3, with_baselines=False)
    assert reported["train_seed"] == 2
    assert len(reported["returns"]) == TINY["num_adaptations"] + 1


@pytest.mark.parametrize(
    "harm", ["truncated", "another digest", "another network", "no arrays", "pickled", "cut card", "poor card"]
)
def test_a_damaged_one_is_refused(home, tmp_path, harm):
    folder = tmp_path / "small"
    for name in ("small", "sound"):
        shutil.copytree(home / "small", tmp_path / name)
    arrays, card = folder / pretrained.ARRAYS, folder / pretrained.CARD
    if harm == "truncated":
        arrays.write_bytes(arrays.read_bytes()[:-30])
    elif harm == "another digest":
        card.write_text(json.dumps(json.loads(card.read_text()) | {"digest": "0" * 64}))
    elif harm == "another network":
        reported = json.loads(card.read_text())
        reported["config"]["settings"]["agent.hidden"] = [9]
        card.write_text(json.dumps(reported))
    elif harm == "cut card":
        card.write_text(card.read_text()[:-30])
    elif harm == "poor card":
        card.write_text('{"summary": "A test."}')
    elif harm == "no arrays":
        arrays.unlink()
    else:
        with np.load(arrays) as stored:
            np.savez(arrays, **{name: np.array([object()]) for name in stored.files})
    with pytest.raises(jaxmeta.CheckpointError, match="of another network" if harm == "another network" else None):
        pretrained.load("small", tmp_path)
    assert pretrained.available(tmp_path)["sound"] == "A test."
    pretrained.load("sound", tmp_path)


def test_nothing_is_overwritten(home):
    with pytest.raises(jaxmeta.UsageError, match=r"^The folder of an artefact must be new, got "):
        pretrained.save(home / "small", *jobs.restore(home.parent / "run")[:2], {}, summary="")


def test_those_that_ship_are_small_and_say_where_they_are_from():
    files = [path for path in pretrained.HOME.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LIMIT
    assert pretrained.available()
    for name in pretrained.available():
        reported = pretrained.card(name)
        assert {"summary", "commands", "figures", "config", "digest", "versions", "device"} <= set(reported)
        assert reported["config"]["algorithm"] in name
        assert reported["commands"][-1].startswith(f"jaxmeta evaluate {name} --split test --num-tasks ")


@pytest.mark.parametrize("name", pretrained.available())
def test_those_that_ship_can_be_used(name):
    """A whole life and its evaluation can be composed of each."""
    learner, state, tasks, _ = pretrained.load(name)

    def measured(key, meta):
        return measurement.measure_task(key, learner, meta, tasks, tasks.sample(key, "test"))

    reported = jax.eval_shape(measured, jax.random.key(0), learner.meta(state))
    assert reported.returns.shape == (learner.lifetime.num_adaptations + 1,)


@pytest.mark.slow
def test_the_command_evaluates_one_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = next(iter(pretrained.available()))
    assert main(["evaluate", name, "--num-tasks", "4", "--no-compilation-cache"]) == 0
    assert pretrained.card(name)["config"]["algorithm"] in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "jaxmeta evaluate must be given either RUN_DIR or PRETRAINED, got none."),
        (["run", "--pretrained", "x"], "--pretrained must be given without RUN_DIR, got both."),
        (["mammal"], "A run to load must be one of "),
        (["--pretrained", "mammal"], "A run to load must be one of "),
        (["rl2-maze", "--best"], "--best must be given with RUN_DIR, got PRETRAINED 'rl2-maze'."),
        (["rl2-maze", "--allow-import"], "--allow-import must be given with RUN_DIR, got PRETRAINED 'rl2-maze'."),
    ],
)
def test_mistakes_are_told(capsys, argv, sentence):
    assert main(["evaluate", *argv, "--no-compilation-cache"]) == 2
    assert capsys.readouterr().err.startswith(sentence)
