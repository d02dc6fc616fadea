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
from jaxmeta.training import checkpoints, pretrained
from jaxmeta.training import seeds as populations
from tests import tiers
from tests.conftest import TINY

LIMIT = 2_000_000
"""Bytes of all that ships."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with one artefact, of the second of two members, and the run it came from."""
    folder = tmp_path_factory.mktemp("artefacts")
    settings = {**TINY, "meta_steps": 2}
    recipe = "meta_sgd" if tiers.is_full() else "reptile"
    jaxmeta.train(recipe, "grid_navi:size=3,horizon=4", seeds=(1, 2), run_dir=folder / "run", **settings)
    learner, state, _, config = jaxmeta.restore(folder / "run")
    chosen = populations.config_of(config, populations.members_of(config)[1])
    member = populations.members(state)[1]
    pretrained.save(folder / "home" / "small", learner, member, chosen, summary="A test.", commands=[], figures={})
    return folder / "home"


def test_what_was_saved_is_what_adapts(home):
    assert pretrained.available(home) == {"small": "A test."}
    learner, state, _, config = pretrained.load("small", home)
    trained, states, *_ = jaxmeta.restore(home.parent / "run")
    expected = trained.meta(populations.members(states)[1])
    assert checkpoints.state_digest(learner.meta(state)) == checkpoints.state_digest(expected)
    assert (config["seed"], state.steps_taken) == (2, 2)


@pytest.mark.slow
def test_what_was_saved_is_evaluated_as_the_member_that_it_was(home):
    learner, state, tasks, config = pretrained.load("small", home)
    told = evaluation.evaluate(learner, state, tasks, config, num_tasks=3, with_baselines=False)
    assert told["train_seed"] == 2
    assert len(told["returns"]) == TINY["rounds"] + 1


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
        told = json.loads(card.read_text())
        told["config"]["settings"]["hidden"] = [9]
        card.write_text(json.dumps(told))
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
        pretrained.save(home / "small", *jaxmeta.restore(home.parent / "run")[:2], {}, summary="")


def test_those_that_ship_are_small_and_say_where_they_are_from():
    files = [path for path in pretrained.HOME.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LIMIT
    assert pretrained.available()
    for name in pretrained.available():
        told = pretrained.card(name)
        assert {"summary", "commands", "figures", "config", "digest", "versions", "device"} <= set(told)
        assert told["config"]["recipe"] in name
        assert told["commands"][-1].startswith(f"jaxmeta evaluate --pretrained {name} --split test --num-tasks ")


@pytest.mark.parametrize("name", pretrained.available())
def test_those_that_ship_can_be_used(name):
    """A whole life and its evaluation can be composed of each."""
    learner, state, tasks, _ = pretrained.load(name)

    def measured(key, meta):
        return measurement.measure_task(key, learner, meta, tasks, tasks.sample(key, "test"))

    told = jax.eval_shape(measured, jax.random.key(0), learner.meta(state))
    assert told.returns.shape == (learner.lifetime.rounds + 1,)


@pytest.mark.slow
def test_the_command_evaluates_one_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = next(iter(pretrained.available()))
    assert main(["evaluate", "--pretrained", name, "--num-tasks", "4", "--no-compilation-cache"]) == 0
    assert pretrained.card(name)["config"]["recipe"] in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "jaxmeta evaluate must be given either RUN_DIR or --pretrained, got none."),
        (["run", "--pretrained", "x"], "jaxmeta evaluate must be given either RUN_DIR or --pretrained, got both."),
        (["--pretrained", "mammal"], "--pretrained must be one of "),
        (["--pretrained", "x", "--best"], "--best must be given with RUN_DIR, got --pretrained."),
        (["--pretrained", "x", "--allow-import"], "--allow-import must be given with RUN_DIR, got --pretrained."),
    ],
)
def test_mistakes_are_told(capsys, argv, sentence):
    assert main(["evaluate", *argv, "--no-compilation-cache"]) == 2
    assert capsys.readouterr().err.startswith(sentence)
