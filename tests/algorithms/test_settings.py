"""Which settings algorithms read: what a configuration holds, against what is read while it is built and traced."""

import functools
import re
import sys
from dataclasses import fields
from typing import ClassVar

import jax
import pytest
from jax.interpreters import partial_eval
from msgspec import structs

import jaxmeta
from jaxmeta.algorithms import registry
from jaxmeta.algorithms.baselines import scratch
from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.core import registry as imports
from jaxmeta.core.config import Config, Count
from jaxmeta.core.errors import UsageError
from jaxmeta.core.settings import MOST_HINTS, nested, paths_of, tag_of, traced_settings
from jaxmeta.core.types import Hyperparams, batch_of_tasks
from jaxmeta.evaluation.measurement import measure_task
from jaxmeta.training import jobs
from jaxmeta.training.run_directory import RunDirectory
from tests import tiers
from tests.conftest import tiny

SMALL = {
    "adaptation.num_envs": 2,
    "adaptation.num_adaptations": 2,
    "adaptation.rollout_length": 2,
    "agent.batch_size": 2,
    "agent.temperature": 0.5,
    "agent.target_step_size": 0.5,
    "inner.num_steps": 2,
    "inner.optimizer": "sgd",
    "objective.loss": "policy_gradient",
    "objective.num_query_envs": 2,
    "objective.lifetimes_per_task": 1,
    "outer.gradient_estimator": "backpropagation",
    "outer.tasks_per_batch": 4,
    "outer.num_perturbations": 2,
    "outer.final_learning_rate_fraction": 0.5,
    "num_sources": 2,
    "memory.width": 4,
    "memory.heads": 2,
}
MIXED, VALUED = {"mixed_targets": True}, {"baseline": "value"}
ESTIMATED = {"gradient_estimator": "es", "objective.loss": "return", "inner.optimizer": "adam"}
CLIPPED = {"trust_region": "default", "minibatches": 2}
LOW_RANK = MIXED | {"generator.form": "low_rank", "fine_tune": True}
INFERRED = MIXED | {"task_embedding": "inferred", "map.form": "low_rank", "td": 1.0}
RECURRENT = {"rule.network": "recurrent"}
STEP_SIZES = {name: value for name, value in ESTIMATED.items() if name != "inner.optimizer"}
VALUES = ("dqn", "tabular_q")
VARIANTS = {
    **{(name, agent): [MIXED, ESTIMATED] for name in ("maml", "fomaml", "anil", "hyper_policy") for agent in VALUES},
    **{(name, "actor_critic"): [VALUED, ESTIMATED, CLIPPED] for name in ("maml", "fomaml", "anil")},
    **{("meta_sgd", agent): [MIXED, STEP_SIZES] for agent in VALUES},
    ("meta_sgd", "actor_critic"): [VALUED, STEP_SIZES, CLIPPED],
    **{("learned_optimizer", agent): [MIXED, STEP_SIZES | RECURRENT] for agent in VALUES},
    ("learned_optimizer", "actor_critic"): [VALUED, STEP_SIZES | RECURRENT, CLIPPED],
    **{("hypernetwork", agent): [LOW_RANK, ESTIMATED] for agent in VALUES},
    **{("mapping", agent): [INFERRED] for agent in VALUES},
    **{(name, agent): [MIXED] for name in ("reptile", "scratch", "finetune") for agent in VALUES},
    **{(name, "actor_critic"): [VALUED] for name in ("reptile", "scratch", "finetune")},
    **{(name, None): [{}] for name in ("rl2", "mann", "snail")},
}
"""By algorithm and agent, static choices under which, taken together, it reads every setting there is."""
QUICK = (("reptile", "dqn"), ("scratch", "actor_critic"), ("rl2", None))
"""Of which the fast tier makes sure."""
OF_POLICIES = "outer.trust_region"
"""What an algorithm refuses where its agent is no policy."""
CHECKS = ("__post_init__", "_require_fitting", "require_scorable")
"""Functions that refuse settings, and do nothing with them."""


def recorded(config, read, group=""):
    """The same configuration, of records that note the paths of what the engine asks them for, its checks left out."""
    kind = type(config)
    names = {*kind.__struct_fields__}

    def __getattribute__(self, name):
        asking = sys._getframe(1)
        module = asking.f_globals.get("__name__", "")
        ours = module.startswith("jaxmeta") and module != "jaxmeta.core.config"
        if name in names and ours and asking.f_code.co_name not in CHECKS:
            read.add(group + name)
        return kind.__getattribute__(self, name)

    noting = type(kind)(
        *(kind.__name__, (kind,), {"__getattribute__": __getattribute__}),
        **{"frozen": True, "kw_only": True, "tag": tag_of(config)},
    )
    values = {name: getattr(config, name) for name in names}
    records = {name: value for name, value in values.items() if isinstance(value, Config)}
    return noting(**values | {name: recorded(value, read, f"{group}{name}.") for name, value in records.items()})


def is_hyperparams(node):
    return isinstance(node, Hyperparams)


def paths_read(name, tasks, config, monkeypatch):
    """What an algorithm reads while it is built, and while its start, a meta-step and a lifetime after it are traced.

    Traced hyper-parameters are read where anything depends on them but themselves.
    """
    read = set()
    adaptation = sys.modules["jaxmeta.inner.gradient"]
    start = [None]
    # Of the same value, and what it depends on can be traced.
    monkeypatch.setattr(adaptation, "value_and_gradient", functools.partial(jax.value_and_grad, has_aux=True))
    monkeypatch.setattr(adaptation, "hyperparameters", lambda agent, learning_rate: start[0])

    def program(hyperparams):
        start[0] = hyperparams
        learner = registry.find(name).make(tasks, recorded(config, read))
        batch = batch_of_tasks(jax.random.key(0), learner, tasks)
        state, info = learner.update(jax.random.key(1), learner.init(jax.random.key(2)), batch)
        one = jax.tree.map(lambda leaf: leaf[0], batch.env_params)
        measured = measure_task(jax.random.key(3), learner, learner.meta(state), tasks, one)
        return (
            measured,
            info.metrics,
            [leaf for leaf in jax.tree.leaves(state, is_leaf=is_hyperparams) if not is_hyperparams(leaf)],
        )

    names = [field.name for field in fields(Hyperparams)]
    jaxpr = jax.make_jaxpr(program)(Hyperparams(*[0.5] * len(names))).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    matter = {name for name, is_used in zip(names, used, strict=True) if is_used}
    traced = traced_settings(config) | {path.rpartition(".")[2]: path for path in config.unread}
    return read - {*traced.values()} | {path for name, path in traced.items() if name in matter}


@pytest.mark.parametrize(
    ("name", "agent"), [*QUICK, *tiers.slow(*(variant for variant in VARIANTS if variant not in QUICK))]
)
def test_an_algorithm_reads_every_setting_that_it_has(name, agent, grid, monkeypatch):
    read, chosen = {"meta_steps"}, {} if agent is None else {"agent": agent}
    for variant in VARIANTS[name, agent]:
        config = configure(name, grid, tiny(name, chosen | variant, SMALL))
        read |= paths_read(name, grid, config, monkeypatch)
    there = {path for path in paths_of(config) if agent == "actor_critic" or not path.startswith(f"{OF_POLICIES}.")}
    assert not there - config.unread - read, "never read"
    assert not config.unread & read, "read, and said not to be"


def test_every_algorithm_is_held_to_its_settings():
    assert {name for name, _ in VARIANTS} == set(registry.ALGORITHMS)


REFUSED = {
    "maml": ({"slots": 64}, "setting must be one that maml reads with agent 'dqn', got 'slots'."),
    "rl2": ({"agent": "dqn"}, "setting must be one that rl2 reads, got 'agent'."),
    "mann": (
        {"num_query_envs": 4},
        "setting must be one that mann reads, got 'num_query_envs'. Did you mean 'num_envs'?",
    ),
    "scratch": ({"num_query_envs": 4}, "setting must be one that scratch reads with agent 'dqn', got 'num_query_envs'"),
    "reptile": ({"clip": 0.1}, "setting must be one that reptile reads with agent 'dqn', got 'clip'"),
    "hyper_policy": (
        {"epsilon_decay": 0.5},
        "setting must be one that hyper_policy reads with agent 'dqn', got 'epsilon_decay'. Did you mean 'epsilon'?",
    ),
    "a policy": (
        {"agent": "actor_critic", "dueling": True},
        "setting must be one that maml reads with agent 'actor_critic', got 'dueling'.",
    ),
    "action values": ({"gae_lambda": 0.9}, "setting must be one that maml reads with agent 'dqn', got 'gae_lambda'."),
    "a table": ({"agent": "tabular_q", "hidden": (8,)}, "one that maml reads with agent 'tabular_q', got 'hidden'."),
    "a whole path": ({"memory.slots": 64}, "setting must be one that maml reads with agent 'dqn', got 'memory.slots'."),
    "a name of several": (
        {"learning_rate": 0.1},
        "setting must be written as outer.learning_rate or inner.learning_rate, got 'learning_rate'.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_of_another_algorithm_or_agent_are_refused(case, grid):
    settings, sentence = REFUSED[case]
    name = case if case in registry.ALGORITHMS else "maml"
    for ask in (make_learner, jobs.prepare):
        with pytest.raises(UsageError) as refused:
            ask(name, grid, settings)
        assert sentence in str(refused.value)
        assert "\n" not in str(refused.value)
        assert len(re.findall("'[a-z_.]+'", str(refused.value).partition("Did you mean")[2])) <= MOST_HINTS


@pytest.mark.parametrize("agent", [["dqn"], "dqm", None, 3])
def test_an_agent_that_a_file_names_need_not_be_one(agent, grid):
    with pytest.raises(UsageError, match=r"^agent must be "):
        configure("maml", grid, {"agent": agent})


def test_the_command_line_refuses_it_too(capsys):
    assert main(["train", "--set", "slots=64"]) == USAGE_STATUS
    assert capsys.readouterr().err.startswith("setting must be one that maml reads with agent 'dqn', got 'slots'.")


def test_what_is_swept_must_be_read(grid):
    with pytest.raises(UsageError, match=r"sweep must name a traced hyper-parameter .* got 'epsilon_decay'"):
        jobs.prepare("hyper_policy", grid, sweep={"epsilon_decay": [0.5, 0.9]})


class MineConfig(jaxmeta.ScratchConfig, frozen=True, kw_only=True):
    """Settings of a user's own algorithm: one more than another's, of which it makes no use of one."""

    slots: Count = 3

    unread: ClassVar[frozenset[str]] = frozenset({"agent.stickiness"})


def test_an_algorithm_of_a_users_own_reads_what_its_configuration_holds(grid, monkeypatch):
    seen = []

    def mine(tasks, config: MineConfig = MineConfig()):
        seen.append(config.slots)
        return scratch(tasks, config)

    monkeypatch.setattr(imports, "import_object", lambda argument, path: mine)
    for settings in ({}, {"slots": 64}, MineConfig(slots=5)):
        assert make_learner("my:algorithm", grid, settings).config.slots == seen[-1]
    for name in ("clip", "stickiness"):
        with pytest.raises(UsageError, match=f"one that my:algorithm reads with agent 'dqn', got '{name}'"):
            make_learner("my:algorithm", grid, {name: 0.1})
    assert seen == [3, 64, 5]


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_complete_settings_are_taken_as_they_are(name, grid):
    """A configuration, and what `config.json` holds of it."""
    config = configure(name, grid, {"num_adaptations": 5, "meta_steps": 7})
    assert config.adaptation.num_adaptations == 5
    assert configure(name, grid, config) == config
    assert configure(name, grid, nested(config)) == config
    stranger = nested(config) | {"pockets": 64}
    with pytest.raises(UsageError, match=f"must be one that {name} reads"):
        configure(name, grid, stranger)


def test_a_configuration_of_another_algorithm_is_refused(grid):
    with pytest.raises(UsageError, match="settings must be of type RL2Config for rl2, got 'MAMLConfig'"):
        make_learner("rl2", grid, jaxmeta.MAMLConfig())


def test_a_configuration_says_how_long_a_rollout_is(grid):
    config = jaxmeta.MAMLConfig(meta_steps=7)
    assert configure("maml", grid, config) == structs.replace(
        config, adaptation=jaxmeta.AdaptationConfig(rollout_length=grid.horizon)
    )


def test_a_run_that_was_stored_with_fewer_settings_goes_on(tmp_path):
    """As one of an earlier version, which had fewer; with one that it does not read it does not."""
    arguments = ("scratch", "probe", {"num_envs": 1, "num_adaptations": 1, "hidden": (2,), "tasks_per_batch": 1})
    jaxmeta.train(*arguments, run_dir=tmp_path / "run", meta_steps=1)
    stored = RunDirectory(tmp_path / "run")
    config = stored.load_config()
    del config["settings"]["agent"]["huber"]
    stored.write_config(config)
    assert jobs.restore(tmp_path / "run")[0].config.agent.huber == 0.0
    assert jaxmeta.train(run_dir=tmp_path / "run", resume=True, meta_steps=2).state.steps_taken == 2
    stored.write_config(config | {"settings": config["settings"] | {"slots": 64}})
    with pytest.raises(UsageError, match="must be one that scratch reads with agent 'dqn', got 'slots'"):
        jobs.restore(tmp_path / "run")
