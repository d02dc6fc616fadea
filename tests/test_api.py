"""What a user of Python meets first: names in place of objects, sentences in place of tracebacks."""

import importlib
import pickle
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

import jaxmeta
from jaxmeta.algorithms import registry
from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.core import registry as imports
from jaxmeta.core import tasks
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import MetaState, TaskDistribution
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.reporting.run import Run
from jaxmeta.training import jobs

SMALL = "grid_navi:size=3,horizon=4"
QUICK = {"num_envs": 1, "num_adaptations": 1, "hidden": (2,), "tasks_per_batch": 2}
EVALUATION = {"num_tasks": 2, "with_baselines": False, "with_gap_and_cost": False}
NO_DISTRIBUTION = (None, 5, TaskDistribution, ["grid_navi"], tasks.make_tasks)


@pytest.mark.slow
def test_a_name_stands_for_its_task_distribution(tmp_path):
    learner = make_learner("scratch", SMALL, QUICK)
    assert learner.lifetime.rollout_length == 4
    jaxmeta.train("scratch", SMALL, QUICK, run_dir=tmp_path, meta_steps=1)
    run = jaxmeta.load(tmp_path, SMALL)
    assert run.tasks.name == SMALL
    by_name = evaluation.evaluate(learner, run.state, SMALL, run.config, **EVALUATION)
    assert by_name == jaxmeta.evaluate(run, **EVALUATION)
    assert by_name == evaluation.evaluate(learner, run.state, run.tasks, run.config, **EVALUATION)


@pytest.mark.parametrize("wrong", NO_DISTRIBUTION, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_task_distribution_is_refused_in_one_sentence(wrong, tmp_path):
    jaxmeta.train("scratch", SMALL, QUICK, run_dir=tmp_path, meta_steps=1)
    learner, state, _, config = jobs.restore(tmp_path)
    asked = {
        "configure": lambda: configure("maml", wrong),
        "make_learner": lambda: make_learner("maml", wrong),
        "evaluate": lambda: jaxmeta.evaluate(Run(learner, state, wrong, config)),
        "make_tasks": lambda: jaxmeta.make_tasks(wrong),
    }
    if wrong is not None:  # what the folder names, or the default
        asked["load"] = lambda: jaxmeta.load(tmp_path, wrong)
        asked["train"] = lambda: jaxmeta.train("maml", wrong)
    for name, ask in asked.items():
        with pytest.raises(UsageError, match=r"^tasks must be ") as refused:
            ask()
        assert "\n" not in str(refused.value), name


def test_options_are_keywords_and_end_in_the_name():
    made = jaxmeta.make_tasks("grid_navi", horizon=8, size=4)
    assert made.name == "grid_navi:size=4,horizon=8"
    assert (made.horizon, tasks.make_tasks(made.name).horizon) == (8, 8)
    assert jaxmeta.make_tasks("grid_navi:horizon=8", size=4).name == made.name
    assert jaxmeta.make_tasks("grid_navi").name == "grid_navi"
    varied = jaxmeta.make_tasks("tabular_mdp", varied=True)
    assert varied.name == "tabular_mdp:varied=true"
    assert tasks.make_tasks(varied.name).name == varied.name
    drifting = jaxmeta.make_tasks("recommender", drift=1)
    assert drifting.name == "recommender:drift=1.0"


@pytest.mark.parametrize(
    ("spec", "options", "sentence"),
    [
        ("grid_navi", {"size": "4"}, "grid_navi:size must be an integer, got '4'."),
        ("grid_navi", {"size": 4.5}, "grid_navi:size must be an integer, got 4.5."),
        ("grid_navi", {"sice": 4}, "Did you mean 'size'?"),
        ("grid_navi:size=4", {"size": 5}, "--tasks grid_navi options must name each option once, got 'size'."),
        ("grid_navi", {"size": 1}, "size must be"),
        ("gymnax", {"id": "CartPole-v1,horizon=3"}, "gymnax:id must "),
        ("tabular_mdp", {"varied": 1}, "tabular_mdp:varied must be True or False, got 1."),
    ],
)
def test_an_option_that_does_not_fit_is_refused(spec, options, sentence):
    with pytest.raises(UsageError) as refused:
        jaxmeta.make_tasks(spec, **options)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_kinds_are_refused_in_one_sentence(tmp_path, grid):
    learner = make_learner("scratch", grid, QUICK)
    state = jax.jit(learner.init)(jax.random.key(0))
    config = {"algorithm": "scratch", "seed": 0, "settings": {}}
    path = tmp_path / "picture.png"
    for ask, sentence in (
        (lambda: jaxmeta.evaluate(Run(state, state, grid, config)), "learner must be a MetaLearner, got "),
        (lambda: jaxmeta.evaluate(Run(learner, learner, grid, config)), "state must be a MetaState, got "),
        (lambda: jaxmeta.evaluate(state), "run must be a Run, as jaxmeta.train and jaxmeta.load return it, got "),
        (lambda: jaxmeta.evaluate(None), "run must be a Run, as jaxmeta.train and jaxmeta.load return it, got None"),
        (lambda: jaxmeta.plot_training({"loss": 1.0}, path), "metrics must be lines of metrics.jsonl, got "),
        (lambda: jaxmeta.plot_adaptation([], path), "evaluation must be what jaxmeta.evaluate returns, got "),
        (lambda: jaxmeta.plot_scores(([], []), path), "rows must be the rows of what jaxmeta.compare returns, got "),
        (lambda: jaxmeta.plot_comparison(None, path), "rows must be the rows of what jaxmeta.compare returns, got "),
        (lambda: jaxmeta.compare(5), "A folder to compare must be a path, got 5."),
        (lambda: make_learner(5, grid), "algorithm must be a string, got 5."),
    ):
        with pytest.raises(UsageError) as refused:
            ask()
        assert str(refused.value).startswith(sentence)
        assert "\n" not in str(refused.value)
    assert not path.exists()


MINE = """
import functools

import jaxmeta


class MineConfig(jaxmeta.ScratchConfig, frozen=True, kw_only=True):
    families = {"grid_navi": {"adaptation.num_adaptations": 7}}


def algorithm(tasks, config: MineConfig = MineConfig()):
    "My algorithm."
    return jaxmeta.scratch(tasks, config)


def unfinished(tasks, config: MineConfig):
    return None


def untyped(tasks, config):
    return algorithm(tasks, config)


def of_no_algorithm(tasks, config: jaxmeta.DQNConfig):
    return None


def unknown(tasks, config: "OursConfig"):
    return None


partly = functools.partial(algorithm)
family = jaxmeta.make_tasks("grid_navi:size=3,horizon=4")
without_steps = family._replace(horizon=0)
number = 5
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of a user's own, in the current folder."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


def test_what_is_named_by_its_path_serves_as_ours_do(mine):
    learner = make_learner("mine:algorithm", "grid_navi")
    assert learner.lifetime.num_adaptations == 7, "its configuration has settings of its own"
    with pytest.raises(UsageError, match="one that mine:algorithm reads with agent 'dqn', got 'slots'"):
        make_learner("mine:algorithm", "grid_navi", {"slots": 3})
    made = jaxmeta.make_tasks("mine:family")
    assert (made.name, made.horizon) == ("mine:family", 4)
    run = jaxmeta.train("mine:algorithm", "mine:family", QUICK, run_dir="run", meta_steps=1)
    again = jaxmeta.load("run", allow_import=True)
    assert (again.config["algorithm"], again.tasks.name) == ("mine:algorithm", "mine:family")
    assert jaxmeta.state_digest(again.state) == jaxmeta.state_digest(run.state)
    with pytest.raises(UsageError, match="--allow-import"):
        jaxmeta.load("run")


TYPED = "take a `config` that is annotated by a subclass of AlgorithmConfig"


@pytest.mark.parametrize(
    ("algorithm", "family", "sentence"),
    [
        ("mine:unfinished", "grid_navi", "mine:unfinished must return a MetaLearner, got None."),
        ("mine:untyped", "grid_navi", f"mine:untyped must {TYPED}, got None."),
        ("mine:of_no_algorithm", "grid_navi", f"mine:of_no_algorithm must {TYPED}, got <class "),
        ("mine:unknown", "grid_navi", f"mine:unknown must {TYPED}, got NameError: "),
        ("mine:partly", "grid_navi", f"mine:partly must {TYPED}, got TypeError: "),
        ("mine:number", "grid_navi", "algorithm mine: must be one of "),
        ("mine:MineConfig", "grid_navi", "algorithm mine: must be one of "),
        ("jaxmeta.core.types:MetaLearner", "grid_navi", "algorithm jaxmeta.core.types: must be one of "),
        ("scratch", "mine:number", "--tasks mine: must be one of "),
        ("scratch", "mine:without_steps", "mine:without_steps horizon must be an integer of at least 1, got 0."),
        ("scratch", "mine:family:size=4", "--tasks mine:family options must be none, for it is a distribution and no"),
    ],
)
def test_an_object_that_does_not_fit_is_refused(algorithm, family, sentence, mine):
    with pytest.raises(UsageError) as refused:
        jobs.prepare(algorithm, family)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_entry_points_are_found_under_their_names(mine, monkeypatch):
    def point(path, kind=type(None)):
        found = imports.import_object("", path, kind)
        return types.SimpleNamespace(load=lambda: found)

    points = {
        "jaxmeta.algorithms": {"mine": point("mine:algorithm")},
        tasks.ENTRY_POINTS: {"ours": point("mine:family", TaskDistribution)},
    }
    monkeypatch.setattr(imports, "entry_points", lambda group: points[group])
    family = tasks.make_tasks("ours")
    assert (tasks.available()["ours"], family.name) == ("", "ours")
    assert registry.available()["mine"] == "My algorithm."
    assert make_learner("mine", "ours").lifetime.rollout_length == 4


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_algorithm_is_offered_with_its_configuration(name):
    algorithm = registry.find(name)
    assert getattr(jaxmeta, name) is algorithm.make
    assert getattr(jaxmeta, algorithm.config.__name__) is algorithm.config
    assert algorithm.config().algorithm == name
    assert algorithm.summary.endswith(".")


def test_a_function_and_a_configuration_make_the_learner_that_a_name_makes(grid):
    config = jaxmeta.MAMLConfig(
        adaptation=jaxmeta.AdaptationConfig(num_envs=2, num_adaptations=2),
        agent=jaxmeta.TabularQConfig(epsilon=0.5),
        inner=jaxmeta.InnerOptimizerConfig(num_steps=2, learning_rate=0.2),
        objective=jaxmeta.ObjectiveConfig(loss="td"),
        outer=jaxmeta.MetaGradientConfig(tasks_per_batch=4),
    )
    by_function, by_name = jaxmeta.maml(grid, config), make_learner("maml", grid, config)
    assert repr(by_function) == repr(by_name)
    assert (by_function.lifetime, by_function.env_steps_per_task) == (by_name.lifetime, by_name.env_steps_per_task)
    starts = (jax.jit(learner.init)(jax.random.key(0)) for learner in (by_function, by_name))
    assert len({jaxmeta.state_digest(start) for start in starts}) == 1
    with pytest.raises(UsageError, match=r"^num_steps must be at least 1, got 0"):
        jaxmeta.InnerOptimizerConfig(num_steps=0)
    with pytest.raises(UsageError, match=r"^agent must be of type ActorCriticConfig or DQNConfig or TabularQConfig"):
        jaxmeta.MAMLConfig(agent="dqn")


def test_an_option_of_training_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match=r"^option must be one of .*, got 'num_adaptations'"):
        jaxmeta.train("maml", SMALL, num_adaptations=2)


def test_dir_has_the_public_names_and_nothing_else():
    """Whatever has been imported before: submodules are attributes, and no part of what is offered."""
    for before in ("import jaxmeta", "import jaxmeta.training.loop, jaxmeta.evaluation.evaluate, jaxmeta"):
        code = f"{before}; print(' '.join(name for name in dir(jaxmeta) if not name.startswith('__')))"
        reported = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
        assert reported.stdout.split() == sorted(jaxmeta.__all__)
    assert all(hasattr(jaxmeta, name) for name in [*dir(jaxmeta), "__version__", "__doc__"])


def test_a_learner_is_shown_in_one_line():
    learner = make_learner("maml", "grid_navi")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.jit(learner.init)(jax.random.key(0)).meta))
    rounds = "3 rounds of 4 environments x 15 steps"
    assert repr(learner) == f"MetaLearner(maml, {parameters:,} parameters, 10 tasks a batch, {rounds})"
    short = learner._replace(
        name="mine", lifetime=AdaptationConfig(num_envs=1, rollout_length=1, num_adaptations=1), tasks_per_batch=2000
    )
    assert repr(short).endswith("2,000 tasks a batch, 1 round of 1 environment x 1 step)")
    assert repr(short._replace(init=None, lifetime=None)) == "MetaLearner(mine, 2,000 tasks a batch)"


def test_a_distribution_is_shown_in_one_line(grid):
    assert repr(grid) == f"TaskDistribution({SMALL}, horizon 4, splits train, validation, test)"


STATE = MetaState(meta={"params": jnp.ones((3, 2)), "bias": 1.0}, optimizer=None, step=jnp.int32(100), aux_state=None)


def test_a_state_is_shown_in_one_line_whatever_its_leaves_are():
    shown = []
    assert repr(STATE) == "MetaState(step 100, 7 parameters)"
    jax.jit(lambda state: shown.append(repr(state)))(STATE)
    jax.vmap(lambda state: shown.append(repr(state)))(jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), STATE))
    assert shown == ["MetaState(step unknown, 7 parameters)"] * 2
    assert repr(jax.eval_shape(lambda: STATE)) == "MetaState(step unknown, 7 parameters)"
    several = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), STATE)
    assert repr(several) == "MetaState(step 100, 4 members, 7 parameters each)"
    for odd in (None, "no state", object(), jax.tree.structure(STATE)):
        assert repr(STATE.replace(step=odd, meta=odd)).startswith("MetaState(step unknown, ")


def test_a_line_changes_neither_trees_nor_equality_nor_pickles(grid):
    leaves, structure = jax.tree.flatten(STATE)
    assert len(leaves) == 3
    again = pickle.loads(pickle.dumps(STATE))
    assert jax.tree.structure(again) == structure
    assert all(map(jnp.array_equal, jax.tree.leaves(again), leaves))
    plain = STATE.replace(meta=1, step=2)
    assert plain == plain.replace()
    assert plain != plain.replace(step=3)
    assert grid == grid._replace()
    assert grid != grid._replace(horizon=9)
    assert tuple(grid)[:3] == (grid.env, grid.sample, grid.horizon)


def test_a_notebook_shows_the_line(grid):
    formatter = pytest.importorskip("IPython.core.formatters").PlainTextFormatter()
    learner = make_learner("scratch", grid, QUICK)
    for one in (learner, STATE, grid):
        assert formatter(one) == repr(one)
        assert "\n" not in repr(one)


@pytest.mark.parametrize("package", ["core", "nets", "rl", "inner", "outer", "training", "evaluation"])
def test_building_blocks_are_exported_by_their_packages(package):
    module = importlib.import_module(f"jaxmeta.{package}")
    assert module.__all__
    assert all(callable(getattr(module, name)) or name == "Metrics" for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))
