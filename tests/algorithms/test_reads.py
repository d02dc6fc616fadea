"""Which settings recipes read: what they declare is held against what is read while they are composed and traced."""

import contextlib
import functools
import re
import sys
from dataclasses import fields, replace

import jax
import pytest
from jax.interpreters import partial_eval

import jaxmeta
from jaxmeta.algorithms import composition, reads, recipes
from jaxmeta.algorithms.settings import GROUPS, Settings
from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.core import registry
from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import Hypers, sample_tasks
from jaxmeta.evaluation.measurement import measure_task
from jaxmeta.training import jobs
from jaxmeta.training.run_directory import RunDirectory
from tests import tiers

SMALL = {"tasks_per_batch": 4, "population": 2, "minibatches": 2, "envs": 2, "query_envs": 2, "rounds": 2, "steps": 2}
SMALL |= {"memory_width": 4, "heads": 2, "sources": 2, "lives_per_task": 1, "batch_size": 2, "inner_steps": 2}
PLAIN = {"outer_gradient": "backpropagation", "outer_loss": "policy_gradient", "inner_optimizer": "sgd"}
PLAIN |= {"temperature": 0.5, "learning_rate_left": 0.5, "target_step_size": 0.5}
MIXED = {"mixed_targets": True}
ESTIMATED = {"outer_gradient": "es", "outer_loss": "return", "inner_optimizer": "adam"}
VALUED, CLIPPED = {"baseline": "value"}, {"outer_update": "proximal"}
LOW_RANK = MIXED | {"generated": "low_rank", "fine_tuned": True}
INFERRED = MIXED | {"representation": "inferred", "map_form": "low_rank", "td": 1.0}
RECURRENT = {"rule": "recurrent"}
VARIANTS = {
    **{(name, "dqn"): [MIXED, ESTIMATED] for name in ("maml", "fomaml", "anil", "meta_sgd", "hyper_policy")},
    **{(name, "tabular_q"): [MIXED, ESTIMATED] for name in ("maml", "meta_sgd", "hyper_policy")},
    **{(name, "actor_critic"): [VALUED, ESTIMATED, CLIPPED] for name in ("maml", "meta_sgd")},
    **{("learned_rule", agent): [MIXED, ESTIMATED | RECURRENT] for agent in ("dqn", "tabular_q")},
    ("learned_rule", "actor_critic"): [VALUED, ESTIMATED | RECURRENT, CLIPPED],
    **{("hypernetwork", agent): [LOW_RANK, ESTIMATED] for agent in ("dqn", "tabular_q")},
    **{("mapping", agent): [INFERRED] for agent in ("dqn", "tabular_q")},
    **{(name, agent): [MIXED] for name in ("reptile", "scratch", "finetune") for agent in ("dqn", "tabular_q")},
    **{(name, "actor_critic"): [VALUED] for name in ("reptile", "scratch", "finetune")},
    **{(name, "dqn"): [{}] for name in ("rl2", "mann", "snail")},
}
"""By recipe and agent, static choices under which, taken together, it reads all that it declares."""
QUICK = (("reptile", "dqn"), ("scratch", "actor_critic"), ("rl2", "dqn"))
"""Of which the fast tier makes sure."""


def recording(kind, read):
    """A group of settings that notes which of its fields the engine asks for, its own checks not counted."""
    names = {*kind.__struct_fields__}

    def __getattribute__(self, name):
        asking = sys._getframe(1)
        module = asking.f_globals.get("__name__", "")
        if name in names and module.startswith("jaxmeta") and module != "jaxmeta.core.config":
            read.add(name)
        return kind.__getattribute__(self, name)

    return type(kind)(kind.__name__, (kind,), {"__getattribute__": __getattribute__}, frozen=True, kw_only=True)


def recorded(complete, read):
    """Complete settings in groups that note what is read."""
    grouped = Settings.from_flat(complete)
    return Settings(
        **{
            group: recording(kind, read)(
                **{field: getattr(getattr(grouped, group), field) for field in kind.__struct_fields__}
            )
            for group, kind in GROUPS.items()
        }
    )


def is_hypers(node):
    return isinstance(node, Hypers)


def settings_read(name, distribution, complete):
    """What a recipe reads while it is built, and while its start, a meta-step and a lifetime after it are traced.

    Traced hyper-parameters are read where anything depends on them but themselves.
    """
    read = set()
    parts = replace(composition.make_parts(distribution, complete), settings=recorded(complete, read))

    def program(hypers):
        learner = recipes.find(name).build(replace(parts, hypers=hypers))
        env_params = sample_tasks(jax.random.key(0), distribution, "train", learner.tasks_per_batch)
        state, metrics = learner.update(jax.random.key(1), learner.init(jax.random.key(2)), env_params)
        one = jax.tree.map(lambda leaf: leaf[0], env_params)
        measured = measure_task(jax.random.key(3), learner, learner.meta(state), distribution, one)
        return measured, metrics, [leaf for leaf in jax.tree.leaves(state, is_leaf=is_hypers) if not is_hypers(leaf)]

    jaxpr = jax.make_jaxpr(program)(parts.hypers).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    names = [field.name for field in fields(Hypers)]
    return read | {name for name, is_used in zip(names, used, strict=True) if is_used}


@pytest.mark.parametrize(
    ("name", "agent"), [*QUICK, *tiers.slow(*(variant for variant in VARIANTS if variant not in QUICK))]
)
def test_a_recipe_reads_what_it_declares(name, agent, grid, monkeypatch):
    # Of the same value, and what it depends on can be traced.
    monkeypatch.setattr(
        sys.modules["jaxmeta.inner.gradient"],
        "value_and_gradient",
        functools.partial(jax.value_and_grad, has_aux=True),
    )
    read = {"meta_steps"}
    for variant in VARIANTS[name, agent]:
        complete = recipes.resolve_settings(name, grid, **PLAIN | SMALL | {"agent": agent} | variant)
        read |= settings_read(name, grid, complete)
    declared = recipes.settings_read(name, complete)
    assert not read - declared, "read and not declared"
    assert not declared - read, "declared and not read"


def test_every_recipe_is_held_to_what_it_declares():
    assert {name for name, _ in VARIANTS} == set(recipes.RECIPES)


REFUSED = {
    "maml": ({"slots": 64}, "setting must be one that maml reads, got 'slots'. Did you mean 'steps'?"),
    "rl2": ({"agent": "dqn"}, "setting must be one that rl2 reads, got 'agent'."),
    "scratch": ({"query_envs": 4}, "setting must be one that scratch reads, got 'query_envs'. Did you mean 'envs'?"),
    "a policy": (
        {"agent": "actor_critic", "dueling": True},
        "setting must be one that maml reads with agent 'actor_critic', got 'dueling'.",
    ),
    "action values": ({"gae_lambda": 0.9}, "setting must be one that maml reads with agent 'dqn', got 'gae_lambda'."),
    "a table": ({"agent": "tabular_q", "hidden": (8,)}, "one that maml reads with agent 'tabular_q', got 'hidden'."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_that_is_not_read_is_refused(case, grid):
    settings, sentence = REFUSED[case]
    recipe = case if case in recipes.RECIPES else "maml"
    for ask in (recipes.make_recipe, lambda name, tasks, **settings: jobs.prepare(name, tasks, settings=settings)):
        with pytest.raises(UsageError) as refused:
            ask(recipe, grid, **settings)
        assert sentence in str(refused.value)
        assert "\n" not in str(refused.value)
        assert len(re.findall("'[a-z_]+'", str(refused.value).partition("Did you mean")[2])) <= reads.MOST_HINTS


@pytest.mark.parametrize("agent", [["dqn"], "dqm", None])
def test_an_agent_that_a_file_names_need_not_be_one(agent):
    with pytest.raises(UsageError, match=r"^agent must be "):
        recipes.settings_read("maml", {"agent": agent})


def test_the_command_line_refuses_it_too(capsys):
    assert main(["train", "--set", "slots=64"]) == USAGE_STATUS
    assert capsys.readouterr().err.startswith("setting must be one that maml reads, got 'slots'.")


@pytest.mark.slow
def test_what_is_swept_must_be_read(grid):
    small = {"envs": 1, "rounds": 1, "tasks_per_batch": 1, "population": 2, "query_envs": 1}
    with pytest.raises(UsageError, match="setting must be one that hyper_policy reads, got 'epsilon_decay'"):
        jobs.prepare("hyper_policy", grid, settings=small, sweep={"epsilon_decay": [0.5, 0.9]})


def test_a_recipe_that_declares_nothing_reads_everything(grid, monkeypatch):
    seen = []

    def mine(parts):
        seen.append(parts.settings.memory.slots)
        return recipes.RECIPES["scratch"].build(parts)

    for declared, refuses in ((None, False), (frozenset({"slots"}), False), (frozenset({"envs"}), True)):
        made = recipes.Recipe("Mine.", mine, reads=declared)
        monkeypatch.setattr(registry, "import_object", lambda argument, path, kind, made=made: made)
        with pytest.raises(UsageError, match="that my:recipe reads") if refuses else contextlib.nullcontext():
            recipes.make_recipe("my:recipe", grid, slots=64)
    assert seen == [64, 64, 64]


def test_complete_settings_are_taken_as_they_are(grid):
    """As `config.json` holds them, those that the recipe does not read among them."""
    complete = recipes.resolve_settings("rl2", grid, memory_width=4) | {"hidden": [3], "query_envs": 2}
    assert recipes.make_recipe("rl2", grid, **complete).lifetime.rounds == complete["rounds"]
    del complete["hidden"]
    with pytest.raises(UsageError, match="must be one that rl2 reads"):
        recipes.make_recipe("rl2", grid, **complete)


def test_a_run_that_was_stored_with_settings_it_does_not_read_goes_on(tmp_path):
    """Also one of an earlier version, which had fewer settings."""
    run = {"recipe": "scratch", "tasks": "probe", "run_dir": tmp_path / "run"}
    settings = {"envs": 1, "rounds": 1, "hidden": (2,), "tasks_per_batch": 1}
    jaxmeta.train(**run, **settings, meta_steps=1)
    stored = RunDirectory(tmp_path / "run")
    config = stored.load_config()
    del config["settings"]["trial_rounds"]
    stored.write_config(config | {"settings": config["settings"] | {"slots": 64}})
    assert jaxmeta.restore(tmp_path / "run")[3]["settings"]["slots"] == 64
    _, state = jaxmeta.train(**run, resume=True, meta_steps=2)
    assert int(state.step) == 2
