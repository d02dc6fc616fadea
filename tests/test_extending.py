"""A user's own tasks and methods: the guide's files run as they stand, and what does not fit is refused."""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxmeta
from jaxmeta.algorithms import composition, recipes
from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.core import registry, tasks
from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import MetaState, TaskDistribution
from jaxmeta.training import jobs
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
    assert [name for name, _ in FILES] == ["heavy_cartpole.py", "doors.py", "noisy.py"]


def test_tasks_in_ten_lines_take_options(folder):
    body = dict(FILES)["heavy_cartpole.py"].split("def heavy_cartpole")[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 10
    made = tasks.make_tasks("heavy_cartpole:heavy_cartpole:heaviest=40")
    assert made.name == "heavy_cartpole:heavy_cartpole:heaviest=40"
    gravity = jax.vmap(lambda key: made.sample(key, "train").gravity)(jax.random.split(jax.random.key(0), 64))
    assert 30 < gravity.max() < 40
    assert made.tasks_seen("test")


@pytest.mark.slow
def test_a_users_own_tasks_and_method_train_and_come_back(folder):
    settings = TINY | {"steps": 0, "meta_steps": 2}
    learner, state = jaxmeta.train("noisy:noisy_maml", "doors:doors", run_dir="run", **settings)
    assert int(state.step) == 2
    _, restored, distribution, config = jaxmeta.restore("run", allow_import=True)
    assert (config["recipe"], distribution.name) == ("noisy:noisy_maml", "doors:doors")
    assert jax.tree.all(jax.tree.map(lambda one, other: bool(jnp.all(one == other)), state, restored))
    starts = [learner.adapter.begin(jax.random.key(seed), state.meta, None)[0].params for seed in (0, 1)]
    assert not jnp.allclose(starts[0]["exploration"], starts[1]["exploration"])


TRAP = """from pathlib import Path

Path("imported").touch()


def trap(*arguments):
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
        config = {"recipe": "maml", "tasks": "probe", "seed": 0, "meta_steps": 1, "settings": {}} | named
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
    "recipe": ({"recipe": "evil:trap"}, "recipe"),
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
    trapped(**NAMED["recipe"][0])
    for load in (jaxmeta.restore, jaxmeta.export_rule, lambda run_dir: jobs.prepare(run_dir=run_dir, resume=True)):
        with pytest.raises(UsageError, match="--allow-import"):
            load("run")
    assert not (tmp_path / "imported").exists()
    with pytest.raises(ValueError, match="imported"):
        jaxmeta.restore("run", allow_import=True)


def test_what_is_given_again_may_be_imported(folder):
    given = {"recipe": "noisy:noisy_maml", "tasks": "doors:doors"}
    config = {**given, "seed": 0, "meta_steps": 1, "settings": {}}
    Path("run").mkdir()
    Path("run", "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="must name a registered recipe"):
        jobs.prepare(tasks="doors:doors", run_dir="run", resume=True)
    with pytest.raises(UsageError, match="must be 'noisy:noisy_maml', as in the run that is resumed"):
        jobs.prepare("noisy:other", "doors:doors", run_dir="run", resume=True)
    assert not {"noisy", "doors"} & set(sys.modules)
    job = jobs.prepare(**given, run_dir="run", resume=True, settings={"meta_steps": 1})
    assert job.config["recipe"] == "noisy:noisy_maml"
    Path("run", "config.json").write_text(json.dumps({**config, "recipe": "maml"}))
    with pytest.raises(UsageError, match="must hold a checkpoint"):  # a distribution that is given needs no path
        jaxmeta.restore("run", job.tasks)


def test_entry_points_of_recipes_are_found(folder, monkeypatch):
    class Point:
        @staticmethod
        def load():
            return registry.import_object("recipe", "noisy:noisy_maml", recipes.Recipe)

    monkeypatch.setattr(registry, "entry_points", lambda group: {"noisy": Point} if "recipes" in group else {})
    assert recipes.available()["noisy"] == "MAML from a start with noise on its parameters."
    assert recipes.find("noisy").summary == recipes.available()["noisy"]
    with pytest.raises(UsageError, match="Did you mean 'noisy'"):
        recipes.find("nosy")


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
    monkeypatch.setattr(registry, "import_object", lambda argument, path, kind: function)
    with pytest.raises(UsageError) as refused:
        tasks.make_tasks("mine:tasks")
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def maml(parts):
    return composition.compose(parts, composition.learner_by_gradient(parts))


def growing(parts):
    learner = maml(parts)

    def update(key, state, env_params):
        state, metrics = learner.update(key, state, env_params)
        return state.replace(carried=jnp.zeros(3)), metrics

    return learner._replace(update=update)


LEARNERS = {
    "nothing": (lambda parts: None, "mine:method must return a MetaLearner, got None."),
    "state": (
        lambda parts: maml(parts)._replace(init=lambda key: {"meta": key}),
        "mine:method init must return a MetaState, got ",
    ),
    "untraceable": (
        lambda parts: maml(parts)._replace(update=lambda key, state, env_params: float(state.step)),
        "mine:method update must be traceable by JAX, got ConcretizationTypeError: ",
    ),
    "state_alone": (
        lambda parts: maml(parts)._replace(update=lambda key, state, env_params: state),
        "mine:method update must return a state and a dictionary of metrics, got ",
    ),
    "growing": (growing, "mine:method update must return a state like the one it takes, "),
    "metrics": (
        lambda parts: maml(parts)._replace(update=lambda key, state, env_params: (state, {"loss": jnp.zeros(())})),
        "mine:method update must report loss and return, got ['loss'].",
    ),
}


@pytest.mark.parametrize("case", LEARNERS)
def test_methods_that_do_not_fit_are_refused(case, grid, monkeypatch):
    function, sentence = LEARNERS[case]
    monkeypatch.setattr(registry, "import_object", lambda argument, path, kind: function)
    with pytest.raises(UsageError) as refused:
        recipes.make_recipe("mine:method", grid, **TINY)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_a_mistyped_path_is_one_sentence(folder, capsys):
    for argv, sentence in (
        (["--tasks", "dors:doors"], "--tasks must name a module that can be imported, got 'dors:doors' "),
        (["--tasks", "doors:dors"], "--tasks doors: must be one of "),
        (["--recipe", "noisy:noisy_mam"], "recipe noisy: must be one of "),
    ):
        assert main(["train", *argv]) == USAGE_STATUS
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1
        assert told[0].startswith(sentence)
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {name for name, _ in FILES}


def test_a_learner_that_fits_is_kept(grid, monkeypatch):
    monkeypatch.setattr(registry, "import_object", lambda argument, path, kind: maml)
    learner = recipes.make_recipe("mine:method", grid, **TINY)
    assert isinstance(jax.eval_shape(learner.init, jax.random.key(0)), MetaState)
