"""Pretrained learners: those that ship with the library."""

import jax
import pytest

from jaxmeta.cli.main import main
from jaxmeta.evaluation import measurement
from jaxmeta.training import learner_files, pretrained

LIMIT = 2_000_000
"""Bytes of all that ships."""


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
    """A lifetime and its evaluation can be composed of each."""
    learner, state, tasks, *_ = learner_files.load(pretrained.HOME / name)

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
