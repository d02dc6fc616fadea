"""Commands that ask for a run anew: typed in, they compose the very same run."""

import shlex
from pathlib import Path

import pytest

from jaxmeta.cli.main import main
from jaxmeta.core.types import TaskDistribution
from jaxmeta.reporting import command_lines
from jaxmeta.training import jobs, loop
from tests import tiers
from tests.toy import CentreEnv

ASKED = {
    "defaults": {},
    "another number of steps": {"algorithm": "rl2", "tasks": "grid_navi:size=4", "seed": 7},
    "all kinds of settings": {
        "algorithm": "reptile",
        "tasks": "bandit",
        "settings": {"hidden": (8, 4), "double": False, "inner.learning_rate": 0.1, "agent": "dqn", "meta_steps": 3},
    },
    "a record that there need not be": {
        "tasks": "point_navigation",
        "settings": {"trust_region": "default", "clip": 0.1, "sampling_correction": False, "tasks_per_batch": 8},
    },
    "what another agent takes": {"tasks": "cartpole", "settings": {"agent": "actor_critic", "baseline": "value"}},
    "a population": {"tasks": "probe", "seeds": (0, 2), "sweep": {"discount": [0.5, 0.9]}, "on_nonfinite": "skip"},
    "somebody's own": {"algorithm": "jaxmeta.algorithms.reptile:reptile", "tasks": "jaxmeta_envs.bandit:bandit:arms=3"},
}


@pytest.mark.parametrize("name", [*sorted({*ASKED} - {"a population"}), *tiers.slow("a population")])
def test_the_command_that_trains_a_run_anew(name, tmp_path, monkeypatch):
    composed = []
    monkeypatch.setattr(loop, "run_job", lambda job, hooks: composed.append(job.config))
    config = jobs.prepare(**ASKED[name]).config
    command = command_lines.of_training(config, tmp_path / "a run")
    program, *words = shlex.split(command)
    assert program == "jaxmeta"
    assert main([*words, "--no-evaluate"]) == 0
    assert composed == [{**config, "evaluate": False}]


def test_what_the_algorithm_would_take_is_not_named():
    config = jobs.prepare("maml", "grid_navi", seed=3, settings={"num_adaptations": 2}).config
    assert command_lines.of_training(config, Path("runs/one")) == (
        "jaxmeta train maml grid_navi --agent dqn --meta-steps 1000 --seed 3 --set num_adaptations=2 --run-dir runs/one"
    )


def test_tasks_that_only_python_knows_have_no_command():
    toy = TaskDistribution(CentreEnv(), lambda key, split: key, horizon=5, name="centres")
    config = {"algorithm": "maml", "tasks": toy.name, "seed": 0, "settings": {}}
    assert command_lines.of_training(config, Path()) is None


def test_the_command_that_evaluates_a_run_as_it_was():
    reported = {"split": "shifted", "num_tasks": 64, "seed": 2, "best": True, "baselines": {"scratch": {"tuned": {}}}}
    command = "jaxmeta evaluate runs/one --split shifted --num-tasks 64 --seed 2"
    assert command_lines.of_evaluation(reported, Path("runs/one")) == f"{command} --best --baselines"
    reported |= {"best": False, "baselines": {"random": {}}}
    assert command_lines.of_evaluation(reported, Path("runs/one")) == f"{command} --no-baselines"
