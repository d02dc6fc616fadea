"""What is told of a population: its evaluation, its picture, and its commands."""

import json

import numpy as np
import pytest
from matplotlib.axes import Axes

from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation import statistics
from jaxmeta.reporting import curves, inspection
from jaxmeta.training import jobs
from jaxmeta.training import seeds as multi_seed
from tests import learners
from tests.boards import rows_of
from tests.conftest import TINY
from tests.learners import begun, follower, quadratic

OF_MEMBER = {"returns", "returns_ci95", "trial_return", "score", "score_mean", "ci95", "task_scores", "env_steps"}
OF_MEMBER |= {"steps_to_threshold", "generalisation_gap", "seed", "hyperparams"}


@pytest.fixture(autouse=True)
def _algorithms(monkeypatch):
    learners.register(monkeypatch, quadratic, follower)


@pytest.fixture(scope="module")
def evaluated(grid):
    """Four members that were not trained, what is told of them together, and what is told of the last one alone."""
    job = jobs.prepare("maml", grid, TINY, seeds=(1, 2), sweep={"temperature": [0.5, 5.0]})
    state, _ = begun(job, job.config)

    def report(state, config):
        return evaluation.evaluate(job.learner, state, grid, config, num_tasks=6, with_baselines=False)

    last = multi_seed.config_of(job.config, multi_seed.members_of(job.config)[-1])
    return report(state, job.config), report(multi_seed.members(state)[-1], last)


@pytest.mark.slow
def test_an_evaluation_pools_members_and_tells_what_each_did(evaluated):
    whole, last = evaluated
    members = whole["members"]
    expected = [(1, 0.5), (2, 0.5), (1, 5.0), (2, 5.0)]
    assert [(report["seed"], report["hyperparams"]["agent.temperature"]) for report in members] == expected
    assert all(set(report) >= OF_MEMBER for report in members)
    for name in OF_MEMBER - {"seed", "hyperparams", "steps_to_threshold"}:
        np.testing.assert_allclose(members[-1][name], last[name], rtol=1e-5, atol=1e-6, err_msg=name)
    scores = np.array([report["task_scores"] for report in members])
    assert whole["score"] == pytest.approx(statistics.interquartile_mean(scores))
    assert whole["ci95"] == pytest.approx(statistics.bootstrap_interval(scores))
    np.testing.assert_allclose(whole["returns"], np.mean([report["returns"] for report in members], axis=0), rtol=1e-5)
    assert "members" not in last
    assert whole["baselines"].keys() == last["baselines"].keys()
    json.dumps(whole, allow_nan=False)


@pytest.mark.slow
def test_compare_pools_the_seeds_of_each_swept_value(evaluated):
    whole, last = evaluated
    rows = rows_of(whole, {**last, "train_seed": 7})
    of_learner = {row["hyperparams"]["agent.temperature"]: row for row in rows if row["method"] == "maml"}
    assert {value: row["seeds"] for value, row in of_learner.items()} == {0.5: 2, 5.0: 3}
    first = np.array([report["task_scores"] for report in whole["members"][:2]])
    assert of_learner[0.5]["score"] == pytest.approx(statistics.interquartile_mean(first), rel=1e-3)
    assert of_learner[0.5]["ci95"] == pytest.approx(statistics.bootstrap_interval(first), rel=1e-3)
    assert {row["seeds"] for row in rows_of(whole) if row["method"] in whole["baselines"]} == {1}


@pytest.mark.slow
def test_baselines_are_measured_once_under_the_first_member_s_settings(grid, monkeypatch):
    asked = []

    def measured(baselines, key, env_params, *arguments, **options):
        asked.append(baselines.grid.temperatures)
        return {}

    monkeypatch.setattr(evaluation.tuned_baselines, "measure_baselines", measured)
    job = jobs.prepare("maml", grid, TINY, seeds=(1, 2), sweep={"temperature": [2.0, 5.0]})
    evaluation.evaluate(job.learner, begun(job, job.config)[0], grid, job.config, num_tasks=2)
    assert asked == [(0.0, 2.0)]


@pytest.mark.slow
def test_the_command_line_trains_shows_and_inspects(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["follower", "probe", "--meta-steps", "2", "--no-compilation-cache"]
    assert main(["train", *options, "--seeds", "0-2", "--sweep", "learning_rate=0.1,0.3", "--no-evaluate"]) == 0
    run_dir = tmp_path / "runs" / "follower-probe-seeds0-2-learning_rate=0.1,0.3"
    assert (run_dir / "training.png").is_file()
    assert "with seeds 0-2, learning_rate=0.1,0.3, in " in capsys.readouterr().err
    assert main(["train", "--resume", "--run-dir", str(run_dir), "--no-evaluate", "--no-compilation-cache"]) == 0
    assert main(["inspect", str(run_dir), "--json", "told.json", "--no-compilation-cache"]) == 0
    reported = json.loads((tmp_path / "told.json").read_text())
    single = inspection.plan(jobs.prepare("follower", "probe", {"meta_steps": 2}))
    assert (reported["members"], single["members"]) == (6, 1)
    assert reported["parameters"] == single["parameters"]
    assert reported["memory"]["state_bytes"] == 6 * single["memory"]["state_bytes"]
    assert "6: seeds 0-2, learning_rate=0.1,0.3" in capsys.readouterr().out
    reported = {"evaluation_seconds": 1.0, "baseline_seconds": 1.0}
    monkeypatch.setattr(inspection, "plan_evaluation", lambda job, on_stage: reported)  # `follower` cannot act
    assert main(["inspect", "--plan", *options, "--seeds", "0-2"]) == 0


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("--seeds 3", "seeds must hold at least 2 seeds, got [3]."),
        ("--seeds x", "--seeds must be written 0-7 or 0,3,5, got 'x'."),
        ("--seeds 0,0", "seeds must repeat nothing, got [0, 0]."),
        ("--seeds 0-1 --seed 3", "seed must be left out where seeds are given, got 3."),
        ("--sweep learning_rate", "--sweep must be written key=value,value, got 'learning_rate'."),
        ("--sweep num_envs=1,2", "sweep must name a traced hyper-parameter (discount, epsilon, "),
        ("--sweep epsilon=0.1,x", "--sweep must be numbers between commas, got '0.1,x'."),
        ("--sweep epsilon=0.1 epsilon=0.2", "--sweep must name a setting once, got 'epsilon' twice."),
        ("--sweep discount=0.9,2", "agent.discount must be at most 1, got 2.0."),
        ("--sweep epsilon=0.1,nan", "agent.epsilon must be finite, got nan."),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(tmp_path, monkeypatch, capsys, argv, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--tasks", "probe", "--no-compilation-cache", *argv.split()]) == USAGE_STATUS
    err = capsys.readouterr().err
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_picture_shows_the_spread_of_members(tmp_path, monkeypatch):
    drawn = []
    fill = Axes.fill_between
    monkeypatch.setattr(
        Axes, "fill_between", lambda axes, *band, **look: drawn.append(band) or fill(axes, *band, **look)
    )
    point = {"meta_step": 1, "env_steps": 10, "loss": 2.0, "return": 1.0}
    curves.plot_training([point], tmp_path / "single.png")
    assert not drawn
    curves.plot_training(
        [{**point, "loss_by_member": [3.0, 1.0], "return_by_member": [0.5, 1.5]}], tmp_path / "both.png"
    )
    assert drawn == [([10], [0.5], [1.5]), ([10], [1.0], [3.0])]
