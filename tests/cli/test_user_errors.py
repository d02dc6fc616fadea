"""Errors in a user's own tasks and algorithms: the sentence names the line, `--traceback` shows the whole way there."""

import sys
from typing import Any

import pytest

from jaxmeta.cli import tracebacks
from jaxmeta.cli.main import FAILURE_STATUS, USAGE_STATUS, main

TASKS = """
import jax.numpy as jnp
from jaxmeta.core import tasks
def made(**changes):
    return tasks.make_tasks("probe")._replace(**changes)
class Changed:
    def __init__(self, **methods):
        self.env = made().env
        vars(self).update(methods)
    def __getattr__(self, name):
        return getattr(self.env, name)
"""
ALGORITHM = """
from jaxmeta import FinetuneConfig, finetune
def made(tasks, config, **changes):
    return finetune(tasks, config)._replace(**changes)
"""
CASES = {
    "syntax": ("--tasks", "def mine(:  # here", 2, "--tasks must name a module that can be imported, got 'own:mine'"),
    "syntax_of_another": ("--tasks", "import helper  # here", 2, "--tasks must name a module that can be imported, "),
    "import": (
        "--algorithm",
        "import nowhere_at_all  # here",
        2,
        "algorithm must name a module that can be imported, got ",
    ),
    "exception": ("--tasks", "raise KeyError('data')  # here", 2, "--tasks must name a module that can be imported, "),
    "exit": ("--tasks", "raise SystemExit(1)  # here", 2, "--tasks must name a module that can be imported, got "),
    "factory": ("--tasks", "def mine():\n    return [][3]  # here", 1, "IndexError: list index out of range"),
    "factory_with_a_mistake": (
        "--tasks",
        "from jaxmeta.core import tasks\ndef mine():\n    return tasks.make_tasks('prob')  # here",
        2,
        "--tasks must be one of ",
    ),
    "factory_by_the_standard_library": (
        "--tasks",
        "import json\ndef mine():\n    return json.loads('{')  # here",
        1,
        "JSONDecodeError: Expecting property name",
    ),
    "sample": (
        "--tasks",
        f"{TASKS}\ndef sample(key, split):\n    return jnp.zeros(3).reshape(2)  # here\n"
        "def mine():\n    return made(sample=sample)",
        2,
        "own:mine sample must be traceable by JAX, got TypeError: ",
    ),
    "step": (
        "--tasks",
        f"{TASKS}\ndef step(key, state, action, params):\n    return 1 if action > 0 else 2  # here\n"
        "def mine():\n    return made(env=Changed(step=step))",
        2,
        "own:mine env.step must be traceable by JAX, got TracerBoolConversionError: ",
    ),
    "build": (
        "--algorithm",
        f"{ALGORITHM}\ndef mine(tasks, config: FinetuneConfig):\n    return config.nothing  # here",
        1,
        "AttributeError: ",
    ),
    "configuration": (
        "--algorithm",
        "import jaxmeta\nclass MineConfig(jaxmeta.FinetuneConfig):\n    meta_steps: int = 1 / 0  # here",
        2,
        "algorithm must name a module that can be imported, got 'own:mine' (ZeroDivisionError: ",
    ),
    "init": (
        "--algorithm",
        f"{ALGORITHM}\ndef init(key):\n    assert False  # here\n"
        "def mine(tasks, config: FinetuneConfig):\n    return made(tasks, config, init=init)",
        2,
        "own:mine init must be traceable by JAX, got AssertionError",
    ),
    "update": (
        "--algorithm",
        f"{ALGORITHM}\ndef update(key, state, env_params):\n    return float(state.step)  # here\n"
        "def mine(tasks, config: FinetuneConfig):\n    return made(tasks, config, update=update)",
        2,
        "own:mine update must be traceable by JAX, got ConcretizationTypeError: ",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "helper.py").write_text("class  # there\n")
    yield tmp_path
    for name in ("own", "helper"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("case", CASES)
def test_the_line_of_the_users_own_code_is_named(folder, capsys, case):
    option, text, status, sentence = CASES[case]
    (folder / "own.py").write_text(text)
    line = 1 + next(index for index, line in enumerate(text.splitlines()) if line.endswith("# here"))
    place = "helper.py:1" if case == "syntax_of_another" else f"own.py:{line}"
    argv = [
        "train",
        option,
        "own:mine",
        "--no-compilation-cache",
        *(["--tasks", "probe"] if option == "--algorithm" else []),
    ]
    assert main(argv) == status
    err = capsys.readouterr().err
    assert err.startswith(sentence)
    assert err.endswith(f" ({place}).\n")
    assert err.count("\n") == 1
    sys.modules.pop("own", None)

    assert main([*argv, "--traceback"]) == status
    whole = capsys.readouterr().err
    assert whole.startswith("Traceback (most recent call last)")
    assert whole.endswith(f"\n{err}")
    assert f'{place.partition(":")[0]}", line {place.partition(":")[2]}' in whole
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"own.py", "helper.py"}


@pytest.mark.slow
def test_an_error_at_run_time_names_the_line(folder, capsys):
    text = f"""{ALGORITHM}
import jax
def look(loss):
    raise RuntimeError("of a callback")  # here
def mine(tasks, config: FinetuneConfig):
    learner = made(tasks, config)
    def update(key, state, tasks):
        state, info = learner.update(key, state, tasks)
        loss = jax.pure_callback(look, info.metrics["loss"], info.metrics["loss"])
        return state, info._replace(metrics=info.metrics | {{"loss": loss}})
    return learner._replace(update=update)
"""
    (folder / "own.py").write_text(text)
    line = 1 + text[: text.index("# here")].count("\n")
    tiny = ["--set", "hidden=4", "num_adaptations=1", "num_envs=2", "tasks_per_batch=2", "--meta-steps", "2"]
    argv = ["train", "own:mine", "probe", *tiny, "--no-compilation-cache"]
    assert main(argv) == FAILURE_STATUS
    reported = capsys.readouterr().err.splitlines()[-1]
    assert "of a callback" in reported
    assert reported.endswith(f" (own.py:{line}).")


def test_mistakes_that_are_not_in_a_users_code_name_no_line(folder, capsys):
    (folder / "own.py").write_text("def mine():\n    return None\n")
    for path in ("own:mine", "own:other", "nowhere:mine"):
        assert main(["train", "--tasks", path, "--no-compilation-cache"]) == USAGE_STATUS
        assert ".py:" not in capsys.readouterr().err


def test_a_path_outside_the_current_folder_is_whole(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "site-packages").mkdir()
    for folder, place in ((tmp_path, f"{tmp_path.resolve() / 'own.py'}:2"), (tmp_path / "site-packages", None)):
        path = folder / "own.py"
        path.write_text("def mine():\n    return 1 / 0\n")
        names: dict[str, Any] = {"__name__": "own"}
        exec(compile(path.read_text(), str(path), "exec"), names)
        with pytest.raises(ZeroDivisionError) as failed:
            names["mine"]()
        error = failed.value.with_traceback(failed.tb.tb_next)  # but for this test's own frame
        assert tracebacks.user_line(error) == place
