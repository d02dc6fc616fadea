"""What the README shows is what runs."""

import json
import re
from pathlib import Path
from types import MappingProxyType

import pytest

from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.reporting import comparison, pooling
from jaxmeta.reporting import html as report
from jaxmeta.training import jobs
from tests.cli.test_main import canned_evaluation
from tests.conftest import TINY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run_example(folder, meta_steps):
    """What the example leaves behind is what it says."""
    names = {}
    exec(compile(EXAMPLE, "README.md", "exec"), names)
    assert names["run"].state.steps_taken == names["again"].state.steps_taken == meta_steps
    assert {"env_steps", "loss", "return"} <= set(names["run"].metrics)
    assert json.loads((folder / "runs" / "mine" / "evaluation.json").read_text()) == names["evaluation"]
    assert (folder / "training.png").is_file()
    assert names["learner"].name == "maml"
    assert names["learner"].lifetime.num_envs == names["config"].adaptation.num_envs


def test_the_example_in_python_fits_together(tmp_path, monkeypatch):
    """On a small scale: two meta-steps of tiny lifetimes, which nobody evaluates."""
    prepare = jobs.prepare

    def small(algorithm, tasks, settings=MappingProxyType({}), **options):
        return prepare(algorithm, tasks, {**TINY, **settings}, **options | {"meta_steps": 2})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "prepare", small)
    monkeypatch.setattr(evaluation, "evaluate", lambda *run, **_: canned_evaluation(*run, on_stage=None))
    run_example(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.optimised
def test_the_example_in_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (meta_steps,) = re.findall(r"meta_steps=(\d+)", EXAMPLE)
    run_example(tmp_path, int(meta_steps))


def test_every_algorithm_and_family_is_listed():
    from jaxmeta.algorithms import registry
    from jaxmeta.core import tasks

    for name in [*registry.available(), *tasks.available()]:
        assert re.search(rf"`{name}[`:]", README), name


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_table_is_that_of_the_committed_cells():
    found, missing = pooling.load_all([ROOT / "benchmarks" / "results" / "scoreboard"])
    page = (ROOT / "docs" / "experiments" / "scoreboard.md").read_text()
    (table,) = re.findall(r"<!-- scoreboard: begin -->\n(.*?)<!-- scoreboard: end -->", page, re.DOTALL)
    assert table == report.markdown(comparison.rows(found), missing)
