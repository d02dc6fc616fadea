"""Trackers of experiments: what each is told, through a package that stands in for its own."""

import contextlib
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxmeta.cli import options as cli
from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.core.errors import UsageError
from jaxmeta.training import loggers
from jaxmeta.training.loggers import PROJECT, TRACKERS, logging_to
from jaxmeta.training.run_directory import RunDirectory
from tests import learners
from tests.records import without_timing

CONFIG = {
    "algorithm": "maml",
    "seed": 3,
    "seeds": [3, 4],
    "settings": {"agent": {"type": "dqn", "hidden": [8, 8]}, "outer": {"learning_rate": 0.1, "trust_region": None}},
}
FACTS = {
    "algorithm": "maml",
    "seed": 3,
    "settings.agent": "dqn",
    "settings.outer.learning_rate": 0.1,
    "settings.outer.trust_region": None,
}
"""What a tracker shows of that configuration: by path, what is a single value."""
RECORDS = [
    {"meta_step": 5, "loss": 0.5, "return": 1, "return_by_member": [1.0, 1.0]},
    {"meta_step": 10, "loss": 0.25, "return": 2, "return_by_member": [1.0, 3.0], "validation_return": 1.5},
]
METRICS = [({"loss": 0.5, "return": 1}, 5), ({"loss": 0.25, "return": 2, "validation_return": 1.5}, 10)]
"""What it shows of those log points: what is a single number, and the meta-step."""


class Calls(list):
    """What was called, in order: names, and what was given."""

    def noting(self, name, answer=None):
        """A function that notes that it was called."""

        def called(*given, **named):
            self.append((name, *given, *([named] if named else [])))
            return answer

        return called


def wandb(calls):
    run = SimpleNamespace(log=lambda metrics, step: calls.append(("log", metrics, step)), finish=calls.noting("finish"))
    return SimpleNamespace(init=calls.noting("init", run))


def trackio(calls):
    return SimpleNamespace(
        init=calls.noting("init"),
        log=lambda metrics, step: calls.append(("log", metrics, step)),
        finish=calls.noting("finish"),
    )


def mlflow(calls):
    @contextlib.contextmanager
    def start_run(run_name):
        calls.append(("init", run_name))
        try:
            yield
        finally:
            calls.append(("finish",))

    return SimpleNamespace(
        set_experiment=calls.noting("experiment"),
        start_run=start_run,
        log_params=calls.noting("params"),
        log_metrics=lambda metrics, step: calls.append(("log", metrics, step)),
    )


BEGINNINGS = {
    "wandb": [("init", {"project": PROJECT, "name": "run-1", "config": FACTS})],
    "trackio": [("init", {"project": PROJECT, "name": "run-1", "config": FACTS})],
    "mlflow": [("experiment", PROJECT), ("init", "run-1"), ("params", FACTS)],
}
"""What each is told at first."""
PACKAGES = {"wandb": wandb, "trackio": trackio, "mlflow": mlflow}


@pytest.fixture
def calls(request, monkeypatch):
    """What is called of the package of a name, which is taken for installed."""
    calls = Calls()
    monkeypatch.setitem(sys.modules, request.param, PACKAGES[request.param](calls))
    return calls


each = pytest.mark.parametrize(("calls", "name"), [(name, name) for name in TRACKERS], indirect=["calls"])


@each
def test_a_tracker_is_told_the_configuration_and_the_numbers_of_each_log_point(calls, name):
    with logging_to(name, CONFIG, "run-1") as on_log:
        assert calls == BEGINNINGS[name]
        for record in RECORDS:
            on_log(record)
    assert calls == [*BEGINNINGS[name], *(("log", *reported) for reported in METRICS), ("finish",)]


@each
def test_a_run_that_ends_early_is_finished_too(calls, name):
    with pytest.raises(KeyboardInterrupt), logging_to(name, CONFIG, "run-1"):
        raise KeyboardInterrupt
    assert calls == [*BEGINNINGS[name], ("finish",)]


def test_without_a_tracker_nobody_is_told(monkeypatch):
    monkeypatch.setattr(loggers.importlib, "import_module", lambda name: pytest.fail("nothing is to be imported"))
    with logging_to(None, CONFIG, "run-1") as on_log:
        assert on_log(RECORDS[0]) is None


def test_a_tracker_that_there_is_not_is_refused():
    with pytest.raises(UsageError) as refused, logging_to("wandbb", CONFIG, "run-1"):
        pass
    assert str(refused.value) == "--log must be one of mlflow, trackio, wandb, got 'wandbb'. Did you mean 'wandb'?"


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_whose_package_is_not_installed_is_refused(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError) as refused, logging_to(name, CONFIG, "run-1"):
        pass
    sentence = f"--log must have its package installed, pip install 'jaxmeta[{name}]', got {name!r}."
    assert str(refused.value) == sentence


def test_every_tracker_is_an_extra_of_the_package_and_shown_by_the_command_line():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(TRACKERS) == set(cli.LOGGERS) == set(PACKAGES)
    assert all(any(package.startswith(name) for package in extras[name]) for name in TRACKERS)


@pytest.mark.parametrize("calls", ["wandb"], indirect=True)
def test_the_command_line_logs_to_one(calls, tmp_path, monkeypatch):
    learners.register(monkeypatch, learners.quadratic)
    run = ["train", "quadratic", "probe", "--run-dir", str(tmp_path / "run"), "--no-compilation-cache"]
    assert main([*run, "--meta-steps", "4", "--log-every", "2", "--no-evaluate", "--log", "wandb"]) == 0
    (_, begun), *reported, _ = calls
    assert (begun["name"], begun["config"]["algorithm"]) == ("run", "quadratic")
    assert begun["config"]["settings.learning_rate"] == 0.1
    records = without_timing([{"meta_step": step, **metrics} for _, metrics, step in reported])
    assert records == without_timing(RunDirectory(tmp_path / "run").read_metrics())


def test_the_command_line_refuses_one_before_it_trains(tmp_path, monkeypatch, capsys):
    learners.register(monkeypatch, learners.quadratic)
    run = ["train", "quadratic", "probe", "--run-dir", str(tmp_path / "run"), "--no-compilation-cache"]
    assert main([*run, "--log", "wandbb"]) == USAGE_STATUS
    assert "--log must be one of mlflow, trackio, wandb, got 'wandbb'." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
