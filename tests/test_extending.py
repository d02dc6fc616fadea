"""A user's own tasks and algorithms: the guide's files run as they stand, and what does not fit is refused."""

import importlib
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxmeta
from jaxmeta.algorithms import registry
from jaxmeta.algorithms.registry import ALGORITHMS, available, make_learner
from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.core import registry as imports
from jaxmeta.core import tasks
from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import MetaState, StepInfo, Task, TaskDistribution, batch_of_tasks
from jaxmeta.training import jobs
from jaxmeta_envs.families import FAMILIES
from tests.conftest import TINY

GUIDE = Path(__file__).parent.parent / "docs" / "extending.md"
FILES = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The guide's files in a folder that commands are given in."""
    for name, text in FILES:
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, _ in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_guide_has_its_files():
    assert [name for name, _ in FILES] == ["heavy_cartpole.py", "doors.py", "noisy.py", "median.py"]


def test_tasks_in_ten_lines_take_options(folder):
    body = dict(FILES)["heavy_cartpole.py"].split("def heavy_cartpole")[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 10
    made = tasks.make_tasks("heavy_cartpole:heavy_cartpole:heaviest=40")
    assert made.name == "heavy_cartpole:heavy_cartpole:heaviest=40"
    gravity = jax.vmap(lambda key: made.sample(key, "train").gravity)(jax.random.split(jax.random.key(0), 64))
    assert 30 < gravity.max() < 40
    assert made.tasks_seen("test")


def test_in_the_package_an_algorithm_and_a_family_are_a_file_and_a_line_each(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(ALGORITHMS, "noisy_maml", "noisy:noisy_maml")
    monkeypatch.setitem(FAMILIES, "doors", "doors:doors")
    learner = make_learner("noisy_maml", "doors", TINY | {"rollout_length": 0})
    assert (learner.name, learner.lifetime.rollout_length) == ("noisy_maml", 3)
    assert available()["noisy_maml"] == "MAML from a start with noise on its parameters."


def test_an_outer_rule_is_one_file(folder, grid):
    settings = TINY | {"tasks_per_batch": 3}
    norms = []
    for name in ("median:median_maml", "maml"):
        learner = make_learner(name, grid, settings)
        state = jax.eval_shape(learner.init, jax.random.key(0))
        batch = jax.eval_shape(lambda key, learner=learner: batch_of_tasks(key, learner, grid), jax.random.key(1))
        after, info = jax.eval_shape(learner.update, jax.random.key(2), state, batch)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        norms.append(info.metrics["meta_gradient_norm"].shape)
    assert norms == [(), ()]


def test_the_outer_rule_of_the_guide_descends_on_the_median(folder, grid, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    median = importlib.import_module("median")
    adapter = make_learner("maml", grid, TINY).adapter
    wanted = jnp.array([[1.0], [2.0], [30.0]])

    def objective(key, meta, task, learner_state):
        return jnp.sum(meta.params["exploration"] * task.env_params), None, {}

    init, update = median.median_gradient(adapter, objective, optax.sgd(1.0))
    state = init(jax.random.key(0))
    after, _ = update(jax.random.key(1), state, Task(wanted, None))
    moved = after.meta.params["exploration"] - state.meta.params["exploration"]
    assert jnp.allclose(moved, -2.0)


@pytest.mark.slow
def test_a_users_own_tasks_and_algorithm_train_and_come_back(folder):
    settings = TINY | {"rollout_length": 0, "meta_steps": 2}
    run = jaxmeta.train("noisy:noisy_maml", "doors:doors", settings | {"noise": 0.2}, run_dir="run")
    learner, state = run.learner, run.state
    assert int(state.step) == 2
    loaded = jaxmeta.load("run", allow_import=True)
    assert (loaded.config["algorithm"], loaded.tasks.name) == ("noisy:noisy_maml", "doors:doors")
    assert loaded.config["settings"]["noise"] == loaded.learner.config.noise == 0.2
    assert jax.tree.all(jax.tree.map(lambda one, other: bool(jnp.all(one == other)), state, loaded.state))
    starts = [learner.adapter.reset(jax.random.key(seed), state.meta, None)[0].params for seed in (0, 1)]
    assert not jnp.allclose(starts[0]["exploration"], starts[1]["exploration"])


def test_a_users_own_algorithm_has_settings_of_its_own_and_those_it_inherits(folder):
    learner = make_learner("noisy:noisy_maml", "doors:doors", {"noise": 0.3, "inner.num_steps": 2})
    assert (learner.config.noise, learner.config.inner.num_steps) == (0.3, 2)
    for settings, sentence in (
        ({"nois": 0.3}, "setting must be one that noisy:noisy_maml reads with agent 'dqn', got 'nois'. Did you mean"),
        ({"noise": -1.0}, "noise must be at least 0, got -1.0."),
        ({"clipped": 1}, "setting must be one that noisy:noisy_maml reads with agent 'dqn', got 'clipped'."),
    ):
        with pytest.raises(UsageError) as refused:
            make_learner("noisy:noisy_maml", "doors:doors", settings)
        assert str(refused.value).startswith(sentence)


def test_the_guides_class_takes_what_it_says_of_families_and_of_what_is_not_read(folder, monkeypatch):
    make_learner("noisy:noisy_maml", "doors:doors")
    module = sys.modules["noisy"]
    monkeypatch.setattr(module.NoisyMAMLConfig, "families", {"doors": {"inner.num_steps": 3}})
    monkeypatch.setattr(module.NoisyMAMLConfig, "unread", frozenset({"agent.stickiness"}))
    assert make_learner("noisy:noisy_maml", "doors:doors").config.inner.num_steps == 3
    with pytest.raises(UsageError, match="one that noisy:noisy_maml reads with agent 'dqn', got 'stickiness'"):
        make_learner("noisy:noisy_maml", "doors:doors", {"stickiness": 0.1})
    config = module.NoisyMAMLConfig(noise=0.2)
    assert module.noisy_maml(tasks.make_tasks("doors:doors"), config).config.noise == 0.2


TRAP = """from pathlib import Path

from jaxmeta import ScratchConfig

Path("imported").touch()


def trap(tasks=None, config: ScratchConfig = None):
    raise ValueError("imported")
"""
"""A module that tells that it was imported."""


@pytest.fixture
def trapped(tmp_path, monkeypatch):
    """Makes, in the current folder, the folder of a run that names what it is told to; beside it lies the trap."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "evil.py").write_text(TRAP)

    def write(**named):
        config = {"algorithm": "maml", "tasks": "probe", "seed": 0, "meta_steps": 1, "settings": {}} | named
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "config.json").write_text(json.dumps(config))

    yield write
    sys.modules.pop("evil", None)


OPENED = {
    "inspect": ["inspect", "run"],
    "evaluate": ["evaluate", "run", "--no-compilation-cache"],
    "resume": ["train", "--resume", "--run-dir", "run", "--no-compilation-cache"],
}
NAMED = {
    "algorithm": ({"algorithm": "evil:trap"}, "algorithm"),
    "tasks": ({"tasks": "evil:trap:size=3"}, "task distribution"),
}


@pytest.mark.parametrize("named", NAMED)
@pytest.mark.parametrize("verb", OPENED)
def test_opening_a_run_directory_imports_nothing_unless_allowed(trapped, tmp_path, capsys, verb, named):
    content, kind = NAMED[named]
    trapped(**content)
    assert main(OPENED[verb]) == USAGE_STATUS
    rule = f"must name a registered {kind}, or be loaded with --allow-import"
    assert capsys.readouterr().err == f"config.json of 'run' {rule}, got {content[named]!r}.\n"
    assert not (tmp_path / "imported").exists()
    assert "evil" not in sys.modules

    main([*OPENED[verb], "--allow-import"])
    assert (tmp_path / "imported").exists()


def test_in_python_too_an_import_must_be_allowed(trapped, tmp_path):
    trapped(**NAMED["algorithm"][0])
    for load in (jaxmeta.load, jaxmeta.export_optimizer, lambda run_dir: jobs.prepare(run_dir=run_dir, resume=True)):
        with pytest.raises(UsageError, match="--allow-import"):
            load("run")
    assert not (tmp_path / "imported").exists()
    with pytest.raises(ValueError, match="imported"):
        jaxmeta.load("run", allow_import=True)


def test_what_is_given_again_may_be_imported(folder):
    given = {"algorithm": "noisy:noisy_maml", "tasks": "doors:doors"}
    config = {**given, "seed": 0, "meta_steps": 1, "settings": {}}
    Path("run").mkdir()
    Path("run", "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="must name a registered algorithm"):
        jobs.prepare(tasks="doors:doors", run_dir="run", resume=True)
    with pytest.raises(UsageError, match="must be 'noisy:noisy_maml', as in the run that is resumed"):
        jobs.prepare("noisy:other", "doors:doors", run_dir="run", resume=True)
    assert not {"noisy", "doors"} & set(sys.modules)
    job = jobs.prepare(**given, run_dir="run", resume=True, settings={"meta_steps": 1})
    assert job.config["algorithm"] == "noisy:noisy_maml"
    Path("run", "config.json").write_text(json.dumps({**config, "algorithm": "maml"}))
    with pytest.raises(UsageError, match="must hold a checkpoint"):  # a distribution that is given needs no path
        jaxmeta.load("run", job.tasks)


def test_entry_points_of_algorithms_are_found(folder, monkeypatch):
    class Point:
        @staticmethod
        def load():
            return imports.import_object("algorithm", "noisy:noisy_maml")

    groups = {"jaxmeta.algorithms": {"noisy": Point}}
    monkeypatch.setattr(imports, "entry_points", lambda group: groups.get(group, {}))
    assert registry.available()["noisy"] == "MAML from a start with noise on its parameters."
    assert registry.find("noisy").summary == registry.available()["noisy"]
    with pytest.raises(UsageError, match="Did you mean 'noisy'"):
        registry.find("nosy")


def fitting(**changes) -> TaskDistribution:
    return tasks.make_tasks("grid_navi:size=3,horizon=4")._replace(**changes)


class Changed:
    """A GridNavi some of whose methods are others."""

    def __init__(self, **methods):
        self.env = fitting().env
        vars(self).update(methods)

    def __getattr__(self, name):
        return getattr(self.env, name)


def five_values(key, state, action, params):
    return fitting().env.step(key, state, action, params)[:5]


def python_branch(key, params):
    return fitting().env.reset(key, params) if params.goal[0] > 1 else None


def no_final_observation(key, state, action, params):
    *most, info = fitting().env.step(key, state, action, params)
    return (*most, {name: value for name, value in info.items() if name != "final_observation"})


def two_rewards(key, state, action, params):
    observation, state, reward, *rest = fitting().env.step(key, state, action, params)
    return observation, state, jnp.stack([reward, reward]), *rest


TASKS = {
    "nothing": (lambda: None, "mine:tasks must return a TaskDistribution, got None."),
    "horizon": (lambda: fitting(horizon=0), "mine:tasks horizon must be an integer of at least 1, got 0."),
    "splits": (
        lambda: fitting(splits=("train",)),
        "mine:tasks splits must hold train, validation, test, got ('train',).",
    ),
    "sample": (lambda: fitting(sample=lambda key: key), "mine:tasks sample must be traceable by JAX, got TypeError: "),
    "other_split": (
        lambda: fitting(sample=lambda key, split: jnp.zeros(2 if split == "test" else 3)),
        "mine:tasks sample of the split 'test' must give what the split 'train' gives, float32[3], got float32[2].",
    ),
    "reset": (lambda: fitting(env=Changed(reset=python_branch)), "mine:tasks env.reset must be traceable by JAX, got "),
    "five": (
        lambda: fitting(env=Changed(step=five_values)),
        "mine:tasks env.step must return observation, state, reward, terminated, truncated and info, got '5 values'.",
    ),
    "final": (
        lambda: fitting(env=Changed(step=no_final_observation)),
        "mine:tasks env.step info must hold 'final_observation', the successor before a reset, got ",
    ),
    "reward": (lambda: fitting(env=Changed(step=two_rewards)), "mine:tasks env.step reward must be a scalar, got "),
    "argument": (lambda size: None, "mine:tasks must have a default for each of its arguments, got none for 'size'."),
}


@pytest.mark.parametrize("case", TASKS)
def test_tasks_that_do_not_fit_are_refused(case, monkeypatch):
    function, sentence = TASKS[case]
    monkeypatch.setattr(imports, "import_object", lambda argument, path, kind: function)
    with pytest.raises(UsageError) as refused:
        tasks.make_tasks("mine:tasks")
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def made_from(change):
    """An algorithm that is MAML, but for a change of the learner."""

    def algorithm(tasks, config: jaxmeta.MAMLConfig = jaxmeta.MAMLConfig()):
        return change(jaxmeta.maml(tasks, config))

    return lambda argument, path: algorithm


def growing(maml):
    def update(key, state, batch):
        state, info = maml.update(key, state, batch)
        return state.replace(aux_state=jnp.zeros(3)), info

    return maml._replace(update=update)


LEARNERS = {
    "nothing": (lambda maml: None, "mine:algorithm must return a MetaLearner, got None."),
    "state": (
        lambda maml: maml._replace(init=lambda key: {"meta": key}),
        "mine:algorithm init must return a MetaState, got ",
    ),
    "untraceable": (
        lambda maml: maml._replace(update=lambda key, state, batch: float(state.step)),
        "mine:algorithm update must be traceable by JAX, got ConcretizationTypeError: ",
    ),
    "state_alone": (
        lambda maml: maml._replace(update=lambda key, state, batch: state),
        "mine:algorithm update must return a MetaState and a StepInfo, got ",
    ),
    "growing": (growing, "mine:algorithm update must return a state like the one it takes, "),
    "metrics": (
        lambda maml: maml._replace(update=lambda key, state, batch: (state, StepInfo({"loss": jnp.zeros(())}))),
        "mine:algorithm update must report loss and return, got ['loss'].",
    ),
}


@pytest.mark.parametrize("case", LEARNERS)
def test_algorithms_that_do_not_fit_are_refused(case, grid, monkeypatch):
    change, sentence = LEARNERS[case]
    monkeypatch.setattr(imports, "import_object", made_from(change))
    with pytest.raises(UsageError) as refused:
        make_learner("mine:algorithm", grid, TINY)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_a_mistyped_path_is_one_sentence(folder, capsys):
    for argv, sentence in (
        (["maml", "dors:doors"], "--tasks must name a module that can be imported, got 'dors:doors' "),
        (["maml", "doors:dors"], "--tasks doors: must be one of "),
        (["noisy:noisy_mam"], "algorithm noisy: must be one of "),
    ):
        assert main(["train", *argv]) == USAGE_STATUS
        reported = capsys.readouterr().err.splitlines()
        assert len(reported) == 1
        assert reported[0].startswith(sentence)
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {name for name, _ in FILES}


def test_a_learner_that_fits_is_kept(grid, monkeypatch):
    monkeypatch.setattr(imports, "import_object", made_from(lambda maml: maml))
    learner = make_learner("mine:algorithm", grid, TINY)
    assert isinstance(jax.eval_shape(learner.init, jax.random.key(0)), MetaState)
