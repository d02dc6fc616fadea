"""The scoreboard's protocol on small cells: the same for everybody, one program for a traced value, gaps told."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import protocol
import pytest
import scoreboard
from jax.experimental.compilation_cache import compilation_cache

import jaxmeta
from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.core.settings import flattened
from jaxmeta.evaluation import statistics
from jaxmeta.reporting import cells, naming
from jaxmeta.training import interrupts, jobs
from jaxmeta.training import loop as training
from tests import boards
from tests.conftest import TINY

GRADIENT = {name: TINY[name] for name in ("num_envs", "num_adaptations", "hidden", "tasks_per_batch", "num_query_envs")}
CONTEXT = {"num_envs": 1, "num_adaptations": 3, "memory.width": 8, "tasks_per_batch": 8, "epochs": 2, "minibatches": 2}
PROTOCOL = protocol.FAMILIES
FAMILIES = {
    "small_grid": protocol.Family("grid_navi:size=3,horizon=4", 24, 30_000, GRADIENT, CONTEXT),
    "small_bandit": protocol.Family("bandit:arms=2,pulls=3", 3, 20_000, GRADIENT | {"num_envs": 1}, CONTEXT),
}
CELLS = [("small_grid", "reptile"), ("small_grid", "fomaml"), ("small_bandit", "rl2")]
SEEDS = 5


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(protocol, "FAMILIES", FAMILIES)


def board(out, first_seed=0):
    form = protocol.Form(tuple(FAMILIES), ("reptile", "fomaml", "rl2"), 1.0, SEEDS, 16, first_seed)
    return scoreboard.Board("small", form, out)


@pytest.fixture
def cache_hits(tmp_path):
    """A fresh cache of compiled programs, and a list with an entry for each that was found there: compiled before."""
    hits = []

    def note(event, **_):
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    changed = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path / "cache"),
        "jax_persistent_cache_min_compile_time_secs": 1.0,  # tasks of two splits may be drawn alike, at once
    }
    before = {name: getattr(jax.config, name) for name in changed}
    for name, value in changed.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    jax.monitoring.register_event_listener(note)
    yield hits
    jax.monitoring.unregister_event_listener(note)
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def made(out, cell, first_seed=0):
    one = board(out, first_seed)
    scoreboard.make(one, *cell)
    return cells.read(one.path(*cell))


def figures(cell):
    """Of each seed, the figure of its row."""
    return [statistics.interquartile_mean(np.array(own)) for own in naming.last_point(cell)["scores"]]


def measured(cell):
    """What a cell holds that does not depend on the clock."""
    return {name: cell[name] for name in ("points", "seeds", "settings", "method", "tasks")}


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("cell", CELLS, ids="/".join)
def test_a_cell_comes_again(cell, tmp_path, cache_hits):
    first = made(tmp_path / "first", cell)
    assert not cache_hits, "no program is compiled twice"
    again = made(tmp_path / "again", cell)
    assert measured(again) == measured(first)
    other = made(tmp_path / "other", cell, first_seed=SEEDS)
    assert other["seeds"] == list(range(SEEDS, 2 * SEEDS))
    assert other["points"] != first["points"]
    low, high = statistics.prediction_interval(figures(first))
    assert all(low <= figure <= high for figure in figures(other)[:2])


@pytest.mark.slow
@pytest.mark.parametrize(("family", "algorithm"), CELLS[:2])
def test_a_traced_hyper_parameter_changes_no_program(family, algorithm):
    def program(epsilon):
        settings = protocol.settings_of(family, algorithm, board(Path()).size) | {"agent.epsilon": epsilon}
        job = jobs.prepare(algorithm, FAMILIES[family].tasks, seeds=(0, 1), settings=settings)
        return training.lowered(job, training.starting_state(job), training.step_key(job)).as_text()

    assert program(0.5) == program(0.9)


@pytest.mark.parametrize("family", PROTOCOL)
def test_every_method_is_given_the_same(monkeypatch, family):
    """Up to a tenth, unless a training ends by its number of meta-steps."""
    monkeypatch.setattr(protocol, "FAMILIES", PROTOCOL)
    tasks, given = protocol.tasks_of(family), PROTOCOL[family]
    for algorithm in protocol.METHODS:
        try:
            settings = protocol.settings_of(family, algorithm, protocol.FORMS["full"])
        except jaxmeta.UsageError:
            assert family == "point_navigation", "continuous actions are not for everybody"
            continue
        meta_steps = settings.pop("meta_steps")
        learner = make_learner(algorithm, tasks, settings)
        lifetime = learner.lifetime
        assert lifetime.rollout_length == tasks.horizon
        assert lifetime.num_envs * lifetime.num_adaptations * lifetime.rollout_length <= given.adaptation
        share = meta_steps * learner.tasks_per_batch * learner.env_steps_per_task / given.training
        ended = meta_steps > protocol.MOST_META_STEPS - protocol.LOG_POINTS * protocol.PARTS
        assert 0.9 < share < 1.1 or (ended and share < 1), algorithm


def test_cells_are_picked_by_name():
    form = protocol.FORMS["small"]
    assert len(scoreboard.wanted(form, [])) == 12
    assert scoreboard.wanted(form, ["bandit/rl2"]) == [("bandit", "rl2")]
    assert scoreboard.wanted(form, ["maml"]) == [("grid_navi", "maml"), ("bandit", "maml")]
    with pytest.raises(SystemExit, match="--only must name cells of the form"):
        scoreboard.wanted(form, ["cartpole"])


def test_what_does_not_apply_says_why(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "plane", protocol.Family("point_navigation:horizon=5", 30, 3000, {"num_envs": 2}, {}))
    one = board(tmp_path)
    scoreboard.make(one, "plane", "hypernetwork")
    assert one.ended("plane", "hypernetwork")
    reason = json.loads(one.reason("plane", "hypernetwork").read_text())["reason"]
    assert reason.startswith("agent must suit the action space: 'dqn' needs discrete actions")
    assert cells.load(tmp_path) == ([], [f"plane-hypernetwork does not apply: {reason}"])


def test_what_is_wrong_with_a_folder_is_no_reason(tmp_path):
    one = board(tmp_path)
    (tmp_path / "runs").write_text("no folder")
    with pytest.raises(jaxmeta.UsageError, match=r"^run_dir must be"):
        scoreboard.make(one, "small_grid", "reptile")
    assert not one.ended("small_grid", "reptile")


def test_what_is_there_is_kept_and_what_is_damaged_made_again(tmp_path, monkeypatch, capsys):
    form = protocol.Form(("small_grid",), ("reptile", "fomaml", "rl2"), 1.0, 2, 8)
    monkeypatch.setattr(scoreboard, "FORMS", {"small": form, "other": form})
    monkeypatch.setattr(scoreboard.compilation_cache, "enable", lambda: None)
    monkeypatch.setattr(scoreboard, "COMMITTED", tmp_path)
    asked = []

    def make(one, family, algorithm):
        asked.append(algorithm)
        if algorithm == "fomaml":
            raise RuntimeError("it broke")
        command = f"python benchmarks/scoreboard.py --form {one.form} --only {family}/{algorithm}"
        took = {"seconds": 6.0, "meta_step": 3, "evaluation_seconds": 1.0}
        cells.write(one.path(family, algorithm), boards.cell(algorithm, commands=[command], training=took))

    def main(name):
        monkeypatch.setattr(sys, "argv", ["scoreboard.py", "--form", name, "--out", str(tmp_path)])
        asked.clear()
        with pytest.raises(SystemExit) as ended:
            scoreboard.main()
        return asked.copy(), str(ended.value)

    monkeypatch.setattr(scoreboard, "make", make)
    reported = "small_grid/fomaml failed."
    assert main("small") == (["reptile", "fomaml", "rl2"], reported)
    assert main("small") == (["fomaml"], reported)
    path = board(tmp_path).path("small_grid", "rl2")
    path.write_text(path.read_text()[:-9])
    assert main("small") == (["fomaml", "rl2"], reported)
    assert f"{str(path)!r} must be a cell" in capsys.readouterr().out
    calls, reported = main("other")
    assert calls == []
    assert reported.startswith("--out must be a folder of cells of form 'other', got ")


def test_the_committed_cells_are_whole_and_show_their_commands():
    found, missing = cells.load(scoreboard.COMMITTED)
    absent = []
    for sentence in missing:
        if "does not apply" not in sentence:
            assert sentence.startswith("Not made: ")
            absent = sentence.removeprefix("Not made: ").rstrip(".").split(", ")
    assert all(name.endswith(("-mann", "-snail")) for name in absent), "of the memories that take hours, and no other"
    assert {cell["tasks"] for cell in found} == {family.tasks for family in PROTOCOL.values()}
    for cell in found:
        assert all(command.startswith("python benchmarks/scoreboard.py --form ") for command in cell["commands"])
        assert len(cell["seeds"]) >= 5 or cell["kind"] == "reference"


@pytest.mark.parametrize("family", PROTOCOL)
def test_the_committed_cells_are_of_this_protocol(monkeypatch, family):
    monkeypatch.setattr(protocol, "FAMILIES", PROTOCOL)
    made = {algorithm: scoreboard.COMMITTED / f"{family}-{algorithm}.cell.json" for algorithm in protocol.METHODS}
    for algorithm, path in made.items():
        if path.is_file():
            settings = {"outer.trial_rollouts": 0} | protocol.settings_of(family, algorithm, protocol.FORMS["full"])
            held = {"outer.trial_rollouts": 0} | flattened(cells.read(path)["settings"])
            assert {name: held[name] for name in settings} == settings, path.name


def test_memories_are_trained_on_what_validation_tasks_favour():
    favoured = json.loads((scoreboard.COMMITTED.parent / "trial_rounds.json").read_text())["best"]
    trials = {name: family.in_context for name, family in PROTOCOL.items()}
    assert favoured == {
        name: f"{given.get('outer.trial_rollouts', given['adaptation.num_adaptations'])} rounds"
        for name, given in trials.items()
    }


def test_attention_learns_by_the_outer_steps_that_validation_tasks_favour():
    favoured = json.loads((scoreboard.COMMITTED.parent / "outer_steps.json").read_text())
    assert favoured["subject"]["algorithm"] == "snail"
    held = {family: configure("snail", PROTOCOL[family].tasks).outer.learning_rate for family in favoured["best"]}
    assert {family: f"{size:g}" for family, size in held.items()} == favoured["best"]


def test_a_cell_is_estimated_by_what_it_took(monkeypatch):
    monkeypatch.setattr(protocol, "FAMILIES", PROTOCOL)
    for family, algorithm in [("grid_navi", "rl2"), ("maze", "reptile"), ("tabular_mdp", "mapping")]:
        took = cells.read(scoreboard.COMMITTED / f"{family}-{algorithm}.cell.json")["training"]
        (reported,) = scoreboard.estimates([(family, algorithm)], protocol.FORMS["full"])
        assert reported == pytest.approx(took["seconds"] + took["evaluation_seconds"])
    assert scoreboard.estimates([("point_navigation", "mapping")], protocol.FORMS["full"]) == [0.0]


def test_a_cell_that_nobody_has_made_is_taken_for_a_usual_one_of_its_algorithm(tmp_path, monkeypatch):
    for algorithm, seconds in (("reptile", 3.0), ("rl2", 30.0)):
        took = {"seconds": 6 * seconds, "meta_step": 3, "evaluation_seconds": 1.0}
        boards.write(tmp_path, [boards.cell(algorithm, tasks="elsewhere", training=took)])
    monkeypatch.setattr(scoreboard, "COMMITTED", tmp_path)
    form = board(tmp_path).size
    for algorithm, per_meta_step in (("reptile", 6.0), ("rl2", 60.0), ("fomaml", 33.0)):
        meta_steps = protocol.settings_of("small_grid", algorithm, form)["meta_steps"]
        assert scoreboard.estimates([("small_grid", algorithm)], form) == [per_meta_step * meta_steps + 1.0]
    monkeypatch.setattr(scoreboard, "COMMITTED", tmp_path / "nowhere")
    assert scoreboard.estimates([("small_grid", "rl2")], form) == []


def test_what_is_made_beside_a_cell_must_be_there_too(tmp_path):
    one, command = board(tmp_path), ["python benchmarks/scoreboard.py --form small --only small_grid/maml"]
    for name in ("maml", *scoreboard.BESIDE):
        cells.write(one.path("small_grid", name), boards.cell(name, commands=command))
    assert one.ended("small_grid", "maml")
    one.path("small_grid", "scratch").unlink()
    assert not one.ended("small_grid", "maml")


def test_time_that_is_left_goes_by_how_estimates_held(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoreboard, "make", lambda *cell: None)
    clock = iter([0.0, 0.0, 20.0, 20.0, 30.0])
    monkeypatch.setattr(scoreboard.time, "perf_counter", lambda: next(clock))
    assert scoreboard.make_all(board(tmp_path), CELLS[:2], [10.0, 30.0]) == []
    assert capsys.readouterr().out.splitlines() == [
        "1/2 small_grid/reptile: done, 20 s; about 1:00 left",
        "2/2 small_grid/fomaml: done, 10 s; about 0:00 left",
    ]


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path):
    path = tmp_path / "file"
    path.write_text("no folder")
    with pytest.raises(SystemExit, match=r"^--out must be a folder that can be written to, got "):
        scoreboard.require_writable(path)


def test_an_interruption_is_a_sentence(tmp_path, monkeypatch, capsys):
    def interrupted(*cell):
        raise interrupts.Interrupted("Interrupted at meta-step 3 of 9, and saved.")

    monkeypatch.setattr(scoreboard, "FORMS", {"small": board(tmp_path).size})
    monkeypatch.setattr(scoreboard.compilation_cache, "enable", lambda: None)
    monkeypatch.setattr(scoreboard, "make", interrupted)
    monkeypatch.setattr(sys, "argv", ["scoreboard.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        scoreboard.main()
    assert ended.value.code == 130
    reported = "Interrupted at meta-step 3 of 9, and saved. The same command goes on from there.\n"
    assert capsys.readouterr().err == reported
