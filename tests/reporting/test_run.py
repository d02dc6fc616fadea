"""A run as an object: what it tells of itself, and what becomes of it in a folder."""

import json

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxmeta
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.reporting import run as runs
from jaxmeta.training import checkpoints, pretrained
from tests import learners
from tests.cli.test_main import canned_evaluation
from tests.learners import follower, quadratic


@pytest.fixture(autouse=True)
def _algorithms(monkeypatch):
    learners.register(monkeypatch, quadratic, follower)
    monkeypatch.setattr(evaluation, "evaluate", canned)


def canned(learner, state, tasks, config, **options):
    """What an evaluation holds, at once."""
    reported = canned_evaluation(learner, state, tasks, config, **{"on_stage": None, **options})
    last = {"score": 0.1, "ci95": [0.0, 0.2], "tasks_seen": False}
    return reported | {"baselines": {name: report | last for name, report in reported["baselines"].items()}}


def trained(**options):
    return jaxmeta.train("quadratic", "probe", {"learning_rate": 0.2}, meta_steps=6, log_every=2, **options)


@pytest.fixture
def run(tmp_path):
    """A run of six meta-steps, in a folder."""
    return trained(run_dir=tmp_path / "run")


def test_a_run_tells_of_itself_in_a_line(run):
    returned = run.log[-1]["return"]
    facts = f"quadratic on probe, seed 0, meta-step 6 of 6, return {returned:.3g}"
    assert repr(run) == f"Run({facts}, in {run.path})"
    assert repr(trained()) == f"Run({facts})"


def test_a_population_tells_of_its_members():
    sweep = {"learning_rate": [0.1, 0.2]}
    run = jaxmeta.train("follower", "probe", seeds=(0, 2), sweep=sweep, meta_steps=2)
    assert repr(run).startswith("Run(follower on probe, seeds 0,2, learning_rate=0.1,0.2, meta-step 2 of 2, return ")
    assert [float(member.meta["hyperparams"].learning_rate) for member in run.members] == pytest.approx(
        [0.1, 0.1, 0.2, 0.2]
    )


def test_a_single_run_has_one_member(run):
    assert [checkpoints.state_digest(member) for member in run.members] == [checkpoints.state_digest(run.state)]


def test_a_notebook_shows_a_run_and_the_picture_of_its_training(run):
    page = run._repr_html_()
    assert page.startswith("<p><code>Run(quadratic on probe, seed 0, ")
    assert page.count("<svg") == 1
    assert "Environment steps" in page


def test_a_notebook_shows_names_as_they_are_written(run):
    odd = jaxmeta.Run(run.learner, run.state, run.tasks._replace(name="a<b>&c"), run.config)
    assert odd._repr_html_() == "<p><code>Run(quadratic on a&lt;b&gt;&amp;c, seed 0, meta-step 6 of 6)</code></p>"


def test_metrics_are_a_table_of_the_log_points(run):
    table = run.metrics
    assert table["meta_step"].tolist() == [2, 4, 6]
    assert {"env_steps", "seconds", "loss", "return"} <= set(table.columns)
    assert table.to_dict("records") == run.log
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == run.log


def test_a_picture_of_training_is_drawn_and_written_where_asked(run, tmp_path):
    figure = run.plot()
    assert isinstance(figure, Figure)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), run.metrics["return"])
    run.plot(tmp_path / "training.png")
    assert (tmp_path / "training.png").is_file()
    with pytest.raises(jaxmeta.UsageError, match="metrics must hold at least one log point"):
        jaxmeta.Run(run.learner, run.state, run.tasks, run.config).plot()


def test_a_folder_is_loaded_as_it_was_left(run):
    loaded = jaxmeta.load(run.path)
    assert (loaded.config, loaded.log, loaded.path) == (run.config, run.log, run.path)
    assert (loaded.tasks.name, loaded.learner.name) == ("probe", "quadratic")
    assert loaded.learner.config == run.learner.config
    assert checkpoints.state_digest(loaded.state) == checkpoints.state_digest(run.state)
    assert repr(loaded) == repr(run)
    assert jaxmeta.load(str(run.path), best=True).state.steps_taken in (2, 4, 6)


def test_a_run_goes_on_from_its_folder_with_all_its_log_points(run):
    more = jaxmeta.train(run_dir=run.path, resume=True, meta_steps=8)
    assert [record["meta_step"] for record in more.log] == [2, 4, 6, 8]
    assert more.log[:3] == run.log
    assert more.config["meta_steps"] == more.state.steps_taken == 8


@pytest.mark.parametrize("name", pretrained.available())
def test_a_pretrained_learner_is_loaded_by_its_name(name):
    run = jaxmeta.load(name)
    card = pretrained.card(name)
    assert (run.config["algorithm"], run.tasks.name) == (card["config"]["algorithm"], card["config"]["tasks"])
    assert run.learner.name == run.config["algorithm"]
    assert (run.path, run.log) == (None, [])
    assert repr(run).startswith(f"Run({run.config['algorithm']} on {run.tasks.name}, seed ")
    meta = jax.eval_shape(run.learner.init, jax.random.key(0)).meta
    assert jax.tree.structure(run.state.meta) == jax.tree.structure(meta)


def test_what_is_neither_a_folder_nor_a_name_is_refused(tmp_path):
    with pytest.raises(jaxmeta.UsageError, match=r"^A run to load must be one of .*Did you mean 'rl2-maze'"):
        jaxmeta.load("rl2-mase")
    with pytest.raises(jaxmeta.UsageError, match=r"run_dir must be the folder of a run, with a config\.json"):
        jaxmeta.load(tmp_path)


def test_an_evaluation_is_a_dictionary_that_is_shown_as_a_table(run):
    reported = run.evaluate(num_tasks=5, split="shifted", seed=3)
    assert isinstance(reported, jaxmeta.Evaluation)
    assert (reported["num_tasks"], reported["split"], reported["seed"]) == (5, "shifted", 3)
    lines = repr(reported).splitlines()
    assert lines[0] == "5 shifted tasks of probe"
    assert lines[1].split() == ["score", "95", "%", "round", "0", "round", "1"]
    assert [line.split()[0] for line in lines[2:5]] == ["quadratic", "random", "scratch"]
    assert "\x1b" not in repr(reported)
    page = reported._repr_html_()
    assert page.startswith("<pre")
    assert "round 1" in page


def test_an_evaluation_is_left_in_the_folder_with_its_picture(run):
    reported = run.evaluate()
    assert json.loads((run.path / "evaluation.json").read_text()) == reported
    assert (run.path / "adaptation.png").is_file()
    assert {path.name for path in run.path.iterdir()} >= {"config.json", "metrics.jsonl", "checkpoints"}


def test_of_a_run_without_a_folder_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trained().evaluate()["algorithm"] == "quadratic"
    assert not list(tmp_path.iterdir())


def test_evaluate_alone_leaves_nothing(run):
    reported = jaxmeta.evaluate(run, num_tasks=7)
    assert isinstance(reported, jaxmeta.Evaluation)
    assert reported["num_tasks"] == 7
    assert not (run.path / "evaluation.json").exists()
    runs.keep(run, reported)
    assert json.loads((run.path / "evaluation.json").read_text()) == reported


@pytest.mark.parametrize("show_progress", [True, False])
def test_progress_is_told_line_by_line_or_not_at_all(show_progress, capsys):
    seen = []
    run = trained(show_progress=show_progress, hooks=jaxmeta.Hooks(on_log=seen.append))
    out, err = capsys.readouterr()
    assert out == ""
    assert ("meta-step 6/6" in err) == show_progress
    assert seen == run.log
