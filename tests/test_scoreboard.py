"""The scoreboard's protocol on small cells: figures that come again, programs that are compiled once, failures told."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from jaxmeta import cells, comparison, jobs, statistics, training
from tests.conftest import TINY

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "scoreboard.py"
SPEC = importlib.util.spec_from_file_location("scoreboard", SCRIPT)
scoreboard = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(scoreboard)

GRADIENT = {name: TINY[name] for name in ("envs", "rounds", "hidden", "tasks_per_batch", "query_envs")}
CONTEXT = {"envs": 1, "rounds": 3, "memory_width": 8, "tasks_per_batch": 8, "epochs": 2, "minibatches": 2}
FAMILIES = {
    "small_grid": scoreboard.Family("grid_navi:size=3,horizon=4", 24, 30_000, GRADIENT, CONTEXT),
    "small_bandit": scoreboard.Family("bandit:arms=2,pulls=3", 3, 20_000, GRADIENT | {"envs": 1}, CONTEXT),
}
CELLS = [("small_grid", "reptile"), ("small_grid", "fomaml"), ("small_bandit", "rl2")]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(scoreboard, "FAMILIES", FAMILIES)


@pytest.fixture
def programs(tmp_path):
    """Counts how often a program was asked for that had been compiled before."""
    hits = []

    def listen(event, **about):
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax_cache.reset_cache()
    jax.monitoring.register_event_listener(listen)
    yield hits
    jax.monitoring.unregister_event_listener(listen)
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
    jax_cache.reset_cache()


def board(out, first_seed=0, seeds=5):
    form = scoreboard.Form(tuple(FAMILIES), ("reptile", "fomaml", "rl2"), 1.0, seeds, 16, first_seed)
    return scoreboard.Board("small", form, out)


def measured(cell):
    """What a cell holds that does not depend on the clock."""
    return {name: cell[name] for name in ("points", "seeds", "settings", "method", "tasks")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_figures_come_again_and_new_seeds_land_where_they_should(tmp_path, programs):
    first, again, other = (board(tmp_path / name, *seeds) for name, *seeds in (("1",), ("2",), ("3", 5, 2)))
    for cell in CELLS:
        scoreboard.make(first, *cell)
    assert programs == [], "each program is compiled once"
    for cell in CELLS:
        scoreboard.make(again, *cell)
        scoreboard.make(other, *cell)
        told, repeated, fresh = (cells.read(one.path(*cell)) for one in (first, again, other))
        assert measured(repeated) == measured(told)
        assert fresh["seeds"] == [5, 6]
        means = [statistics.mean(np.array(row)) for row in comparison.last_point(told)["scores"]]
        low, high = statistics.prediction_interval(means, 0.99)
        for row in comparison.last_point(fresh)["scores"]:
            assert low <= statistics.mean(np.array(row)) <= high, cell


@pytest.mark.parametrize(("family", "recipe"), CELLS[:2])
def test_a_traced_hyper_parameter_changes_no_program(family, recipe):
    def program(epsilon):
        settings = scoreboard.settings_of(family, recipe, board(Path()).size) | {"epsilon": epsilon}
        job = jobs.prepare(recipe, FAMILIES[family].tasks, seeds=(0, 1), settings=settings)
        return training.lowered(job, training.starting_state(job), training.step_key(job)).as_text()

    assert program(0.5) == program(0.9)


def test_every_method_is_given_the_same(tmp_path):
    for family, protocol in FAMILIES.items():
        for recipe in scoreboard.METHODS:
            settings = scoreboard.settings_of(family, recipe, board(tmp_path).size)
            assert settings["envs"] * settings["rounds"] * scoreboard.tasks_of(family).horizon <= protocol.adaptation
            assert settings["meta_steps"] % (3 * scoreboard.PARTS) == 0


def test_cells_are_picked_by_name():
    form = scoreboard.FORMS["small"]
    assert len(scoreboard.wanted(form, [])) == 12
    assert scoreboard.wanted(form, ["bandit/rl2"]) == [("bandit", "rl2")]
    assert scoreboard.wanted(form, ["maml"]) == [("grid_navi", "maml"), ("bandit", "maml")]
    with pytest.raises(SystemExit, match="--only must name cells of the form"):
        scoreboard.wanted(form, ["cartpole"])


def test_what_does_not_apply_says_why(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "plane", scoreboard.Family("point_navigation:horizon=5", 30, 3000, {"envs": 2}, {}))
    one = board(tmp_path)
    scoreboard.make(one, "plane", "hypernetwork")
    assert one.ended("plane", "hypernetwork")
    reason = json.loads(one.reason("plane", "hypernetwork").read_text())["reason"]
    assert reason.startswith("agent must have action values for hypernetwork")
    assert cells.load(tmp_path) == ([], [f"plane-hypernetwork does not apply: {reason}"])


def test_the_committed_cells_are_whole_and_show_their_commands():
    found, missing = cells.load(scoreboard.COMMITTED)
    assert not [sentence for sentence in missing if "must be" in sentence]
    for cell in found:
        assert all(command.startswith("python benchmarks/scoreboard.py --form ") for command in cell["commands"])
        assert len(cell["seeds"]) >= 5 or cell["kind"] == "reference"
