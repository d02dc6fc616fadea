"""What is called while a run trains, and what comes of it: log points, measurements, checkpoints and an early end."""

import jax
import numpy as np
import pytest

import jaxmeta
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.training import checkpoints, jobs
from jaxmeta.training import loop as training
from jaxmeta.training.run_directory import RunDirectory
from tests import learners
from tests.conftest import tiny
from tests.learners import quadratic
from tests.records import reported, without_timing

EVERY_TWO = {"meta_steps": 10, "log_every": 2}


@pytest.fixture(autouse=True)
def _quadratic(monkeypatch):
    learners.register(monkeypatch, quadratic)


def train(hooks, **options):
    return jaxmeta.train("quadratic", "probe", hooks=hooks, show_progress=False, **EVERY_TWO | options)


def digests(taken):
    """A hook that takes down what state there is at which meta-step."""
    return lambda state, record: taken.update({record["meta_step"]: checkpoints.state_digest(state)})


def test_every_line_of_the_metrics_is_told(tmp_path):
    with_folder, without = [], []
    run = train(jaxmeta.Hooks(on_log=with_folder.append), run_dir=tmp_path / "run")
    train(jaxmeta.Hooks(on_log=without.append))
    assert with_folder == RunDirectory(tmp_path / "run").read_metrics() == run.log
    assert [record["meta_step"] for record in with_folder] == [2, 4, 6, 8, 10]
    assert without_timing(with_folder) == without_timing(without)


def test_checkpoints_are_told_as_they_are_saved_with_or_without_a_folder(tmp_path):
    saved, unsaved = {}, {}
    train(jaxmeta.Hooks(on_checkpoint=digests(saved)), checkpoint_every=5, run_dir=tmp_path)
    train(jaxmeta.Hooks(on_checkpoint=digests(unsaved)), checkpoint_every=5)
    assert list(saved) == checkpoints.finished_steps(tmp_path / "checkpoints") == [6, 10]
    assert saved == unsaved
    learner, *_ = jobs.restore(tmp_path)
    like = jax.eval_shape(learner.init, jax.random.key(0))
    assert saved == {
        step: checkpoints.state_digest(checkpoints.read(tmp_path / "checkpoints", step, like)) for step in saved
    }


def test_the_end_is_a_checkpoint_where_none_was_due():
    taken = {}
    run = train(jaxmeta.Hooks(on_checkpoint=digests(taken)), checkpoint_every=100)
    assert taken == {10: checkpoints.state_digest(run.state)}


def test_a_run_ends_where_it_is_told_to_saved_as_at_its_end(tmp_path):
    seen, taken = [], {}

    def should_stop(record):
        seen.append(record["meta_step"])
        return record["meta_step"] >= 6

    run = train(
        jaxmeta.Hooks(should_stop=should_stop, on_checkpoint=digests(taken)), checkpoint_every=100, run_dir=tmp_path
    )
    assert seen == [2, 4, 6]
    assert run.state.steps_taken == 6
    assert checkpoints.finished_steps(tmp_path / "checkpoints") == [6]
    assert taken == {6: checkpoints.state_digest(run.state)}


def test_a_run_that_was_told_to_end_goes_on_as_if_it_had_not_been(tmp_path):
    whole = train(jaxmeta.Hooks(), run_dir=tmp_path / "whole")
    train(jaxmeta.Hooks(should_stop=lambda record: record["meta_step"] == 4), run_dir=tmp_path / "parts")
    resumed = jaxmeta.train(run_dir=tmp_path / "parts", resume=True)
    assert checkpoints.state_digest(resumed.state) == checkpoints.state_digest(whole.state)
    assert reported(tmp_path / "parts") == reported(tmp_path / "whole")
    assert without_timing(resumed.log) == without_timing(whole.log)


def test_it_is_asked_with_what_was_measured():
    scores = iter([0.1, 0.9, 0.5])
    hooks = jaxmeta.Hooks(
        measure=lambda state: {"score": next(scores)}, should_stop=lambda record: record["score"] > 0.8
    )
    assert train(hooks, evaluate_every=1).state.steps_taken == 4


@pytest.mark.parametrize(
    ("evaluate_every", "measured"),
    [(1, [2, 4, 6, 8, 10]), (2, [2, 4, 6, 8, 10]), (3, [4, 6, 10]), (4, [4, 8]), (10, [10]), (11, [])],
)
def test_measurements_are_part_of_the_log_point_that_follows(tmp_path, evaluate_every, measured):
    records = []

    def measure(state):
        return {"at": state.steps_taken, "first": float(state.meta[0])}

    hooks = jaxmeta.Hooks(measure=measure, on_log=records.append)
    run = train(hooks, evaluate_every=evaluate_every, run_dir=tmp_path)
    assert [record["at"] for record in records if "at" in record] == measured
    assert [record["meta_step"] for record in records if "at" in record] == measured
    assert records == RunDirectory(tmp_path).read_metrics()
    if 10 in measured:
        assert records[-1]["first"] == float(run.state.meta[0])


def test_nothing_is_measured_unless_it_is_asked_for():
    hooks = jaxmeta.Hooks(measure=lambda state: pytest.fail("nobody asked"))
    assert "evaluate_every" not in train(hooks).config


def test_measuring_changes_nothing_that_is_learned():
    plain = train(jaxmeta.Hooks())
    watched = train(jaxmeta.Hooks(measure=lambda state: {"score": 1.0}), evaluate_every=2)
    assert checkpoints.state_digest(plain.state) == checkpoints.state_digest(watched.state)


def test_a_resumed_run_goes_on_measuring(tmp_path):
    steps, hooks = [], jaxmeta.Hooks(measure=lambda state: steps.append(state.steps_taken) or {"score": 1.0})
    train(hooks, evaluate_every=4, meta_steps=6, run_dir=tmp_path)
    jaxmeta.train(run_dir=tmp_path, resume=True, meta_steps=12, hooks=hooks)
    assert steps == [4, 8, 12]
    jaxmeta.train(run_dir=tmp_path, resume=True, meta_steps=16, evaluate_every=3, hooks=hooks)
    assert steps == [4, 8, 12, 16], "another rhythm is a way of logging"


def test_too_rare_a_measurement_is_refused():
    with pytest.raises(jaxmeta.UsageError, match=r"^evaluate_every must be at least 1, got 0\.$"):
        train(jaxmeta.Hooks(), evaluate_every=0)


def test_by_default_validation_tasks_are_measured(monkeypatch, grid):
    drawn, on_validation_tasks = [], evaluation.on_validation_tasks
    watched = grid._replace(sample=lambda key, split: drawn.append(split) or grid.sample(key, split))
    monkeypatch.setattr(evaluation, "on_validation_tasks", lambda *learner: on_validation_tasks(*learner, num_tasks=4))
    options = {"meta_steps": 4, "log_every": 1, "evaluate_every": 2}
    log = jaxmeta.train("scratch", watched, tiny("scratch"), **options).log
    measured = [record["validation_return"] for record in log if "validation_return" in record]
    assert [record["meta_step"] for record in log if "validation_score" in record] == [2, 4]
    assert np.isfinite(measured).all()
    assert measured[0] == measured[1], "by what learns nothing, on the same tasks with the same keys"
    assert "validation" in drawn
    assert "test" not in drawn


def test_the_compiled_program_is_told_once_before_it_runs(tmp_path):
    happened = []
    hooks = jaxmeta.Hooks(
        on_compiled=lambda program: happened.append(type(program)),
        on_log=lambda record: happened.append(record["meta_step"]),
    )
    train(hooks, run_dir=tmp_path, meta_steps=4)
    assert happened == [jax.stages.Compiled, 2, 4]
    jaxmeta.train(run_dir=tmp_path, resume=True, hooks=hooks)
    assert len(happened) == 3, "where a run has come to its end nothing is compiled"


def test_hooks_need_not_be_set():
    job = jobs.prepare("quadratic", "probe", **EVERY_TWO)
    assert training.run_job(job).steps_taken == 10
