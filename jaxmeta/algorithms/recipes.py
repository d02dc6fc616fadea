"""Recipes: methods by name, with the settings that suit them."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxmeta import algorithms as methods
from jaxmeta.algorithms import presets, reads
from jaxmeta.algorithms.composition import Parts, make_parts, spec_of
from jaxmeta.algorithms.settings import FIELD_GROUP, Settings
from jaxmeta.core import contracts, registry
from jaxmeta.core.errors import as_kind, require, require_known
from jaxmeta.core.tasks import as_distribution
from jaxmeta.core.types import MetaLearner, TaskDistribution
from jaxmeta.inner import in_head
from jaxmeta.outer import meta_gradient

ENTRY_POINTS = "jaxmeta.recipes"


class Recipe(NamedTuple):
    """A method by name."""

    summary: str
    build: Callable[[Parts], MetaLearner]
    settings: Mapping[str, dict[str, Any]] = MappingProxyType({})
    """By task family, settings that differ from those of `presets`."""
    everywhere: Mapping[str, Any] = MappingProxyType({})
    """Settings that differ in every family; those of `settings` take precedence."""
    reads: frozenset[str] | None = None
    """The settings that it reads, whatever its agent, see `reads`: others are refused. None: all of them."""


def available() -> dict[str, str]:
    """Names of the recipes, installed packages' own among them, each with one line about it."""
    return {name: find(name).summary for name in [*RECIPES, *registry.entry_points(ENTRY_POINTS)]}


def find(name: str) -> Recipe:
    """The recipe of a name.

    Args:
      name: ours, or an entry point of the group `jaxmeta.recipes`, or `package.module:name`. What is not ours is a
        `Recipe`, or its `build`, a function of `Parts` that returns a `MetaLearner`.

    Raises:
      UsageError: there is none, or it is something else.
    """
    if as_kind("recipe", name, str) in RECIPES:
        return RECIPES[name]
    if is_imported(name):
        found = registry.import_object("recipe", name, Recipe)
    else:
        points = registry.entry_points(ENTRY_POINTS)
        require_known("recipe", name, [*RECIPES, *points])
        found = points[name].load()
    recipe = found if isinstance(found, Recipe) else Recipe((inspect.getdoc(found) or "").split("\n")[0], found)
    require(registry.is_function(recipe.build), name, "be a function, or a Recipe whose build is one", recipe.build)
    for field in ("settings", "everywhere"):
        require(isinstance(getattr(recipe, field), Mapping), f"{name} {field}", "map names", getattr(recipe, field))
    for setting in recipe.reads or ():
        require_known(f"{name} reads", setting, FIELD_GROUP)
    return recipe


def is_imported(name: str) -> bool:
    """Whether a name is that of something which `find` imports by its path.

    >>> is_imported("maml"), is_imported("my.module:method")
    (False, True)
    """
    return ":" in name


def make_recipe(name: str, tasks: str | TaskDistribution, **settings: Any) -> MetaLearner:
    """Composes a method for a task distribution.

    Args:
      name: one of `available()`, or `package.module:name`; see `find`.
      tasks: what it is trained on, or a specification of it, such as `grid_navi:size=4`.
      **settings: fields of the records in `core.config`, by name; or all of them, as `config.json` holds them.

    Raises:
      UsageError: an unknown name or setting, a setting that the recipe does not read, a value that is out of range or
        does not suit the tasks, or a function that builds something else.
    """
    tasks = as_distribution(tasks)
    resolved = resolve_settings(name, tasks, **settings)
    learner = compose(name, tasks, resolved)
    require_read(name, settings, resolved)
    return learner


def compose(name: str, tasks: TaskDistribution, settings: Mapping[str, Any]) -> MetaLearner:
    """Composes a method from complete settings, those that it does not read among them.

    Raises:
      UsageError: as `make_recipe`.
    """
    learner = find(name).build(make_parts(tasks, settings))
    if name not in RECIPES:
        contracts.require_learner(name, learner, tasks)
    return learner._replace(name=name)


def require_read(name: str, given: Iterable[str], settings: Mapping[str, Any]) -> None:
    """Refuses settings that a recipe does not read.

    Args:
      name: of the recipe.
      given: names of the settings that a user gives; all there are, as `config.json` holds them, pass.
      settings: the complete ones.

    Raises:
      UsageError: one of them is not read.
    """
    reads.require_read(name, find(name).reads, given, settings)


def settings_read(name: str, settings: Mapping[str, Any]) -> frozenset[str]:
    """Names of the settings that a recipe reads, with the agent of complete settings."""
    return reads.read_under(find(name).reads, settings["agent"])


def agent_of(name: str, settings: Mapping[str, Any]) -> str | None:
    """The agent of a recipe with these settings; None where it has none, as learners in context."""
    declared = find(name).reads
    return settings.get("agent") if declared is None or "agent" in declared else None


def resolve_settings(name: str, tasks: str | TaskDistribution, **settings: Any) -> dict[str, Any]:
    """The complete settings of a recipe: a user's own, over what suits the recipe and the family, over the defaults.

    Where no agent is asked for it is `actor_critic` if actions are continuous.
    """
    tasks = as_distribution(tasks)
    family, recipe = tasks.name.partition(":")[0], find(name)
    fitting = {}
    if "agent" not in settings and spec_of(tasks).num_actions is None:
        fitting = {"agent": "actor_critic"}
    agent = (fitting | settings).get("agent")
    shared = presets.POLICY_SETTINGS if agent == "actor_critic" else presets.FAMILY_SETTINGS
    suited = {**fitting, **tasks.suggested, **shared.get(family, {})}
    resolved = Settings.from_flat({**suited, **recipe.everywhere, **recipe.settings.get(family, {}), **settings}).flat()
    resolved["steps"] = resolved["steps"] or tasks.horizon
    return resolved


RECIPES = {
    "maml": Recipe(
        "MAML: learns where gradient steps start from.", methods.trained_by(meta_gradient), reads=reads.BY_GRADIENT
    ),
    "fomaml": Recipe(
        "First-order MAML: MAML with the inner gradients held constant.",
        methods.trained_by(meta_gradient, first_order=True),
        {"grid_navi": {"inner_steps": 10, "learning_rate": 0.3, "outer_learning_rate": 1e-3}},
        reads=reads.BY_GRADIENT,
    ),
    "anil": Recipe(
        "ANIL: MAML whose inner loop changes the last layer alone.",
        methods.trained_by(meta_gradient, adapts=in_head),
        reads=reads.BY_GRADIENT,
    ),
    "meta_sgd": Recipe(
        "Meta-SGD: MAML with one learned step size per parameter.",
        methods.meta_sgd,
        reads=reads.BY_GRADIENT_WITH_OWN_RULE,
    ),
    "reptile": Recipe(
        "Reptile: moves the start towards where lifetimes end; no meta-gradient.",
        methods.reptile,
        {name: {"lives_per_task": 1, "tasks_per_batch": 20} for name in ("grid_navi", "maze", "recommender")},
        reads=reads.BY_DISPLACEMENT,
    ),
    "learned_rule": Recipe(
        "Learned update rule: a network sets how far and along which mix of momenta parameters move.",
        methods.learned_rule,
        presets.RULES,
        presets.ON_LONG_LIVES,
        reads.BY_LEARNED_RULE,
    ),
    "hyper_policy": Recipe(
        "A policy that sets Q-learning's step size, discount, exploration, targets and mixing, round by round.",
        methods.hyper_policy,
        presets.GOVERNORS,
        presets.ON_LONG_LIVES,
        reads.BY_HYPER_POLICY,
    ),
    "hypernetwork": Recipe(
        "A hypernetwork: reads the transitions of a task and puts out its Q-network.",
        methods.hypernetwork,
        presets.HYPERNETWORKS,
        reads=reads.BY_HYPERNETWORK,
    ),
    "mapping": Recipe(
        "A map between tasks: carries the Q-parameters of known tasks to a new one's start.",
        methods.mapping,
        presets.MAPS,
        presets.CARRIED,
        reads.BY_MAPPING,
    ),
    "rl2": Recipe(
        "RL^2: a recurrent policy whose memory learns, trained by PPO on whole trials.",
        methods.trained_in_context(methods.recurrent),
        presets.TRIALS,
        presets.ON_TRIALS,
        reads.BY_CELL,
    ),
    "mann": Recipe(
        "MANN: the same with a memory that is read by content and written where least was used.",
        methods.trained_in_context(methods.content_addressed),
        presets.TRIALS,
        presets.ON_TRIALS,
        reads.BY_EXTERNAL_MEMORY,
    ),
    "snail": Recipe(
        "The same with causal attention over all steps of a trial, after SNAIL.",
        methods.trained_in_context(methods.attentive),
        presets.TRIALS,
        presets.ON_ATTENDED_TRIALS,
        reads.BY_ATTENTION,
    ),
    "scratch": Recipe("Baseline: the same agent from a random start.", methods.scratch, reads=reads.BASELINE),
    "finetune": Recipe(
        "Baseline: one agent trained on all tasks, then adapted.", methods.finetune, reads=reads.BASELINE
    ),
}
