"""Methods, each composed in a few lines from an agent, an adapter, an objective and an outer rule."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import contracts, distributions, plugins, presets
from jaxmeta.adapters import gradient_steps, hyper_policy, in_context, in_head
from jaxmeta.base import Key, MetaLearner, MetaState, PyTree, Task, TaskDistribution
from jaxmeta.composition import (
    Parts,
    compose,
    learner_by_gradient,
    learner_of,
    make_parts,
    no_context,
    outer_optimizer,
    require_minibatches,
    spec_of,
)
from jaxmeta.config import LifetimeConfig
from jaxmeta.errors import require, require_known
from jaxmeta.learned_rules import Attentive as AttentiveRule
from jaxmeta.learned_rules import Network, Structured, learned_rule
from jaxmeta.learned_rules import Recurrent as RecurrentRule
from jaxmeta.memories import Attentive, ContentAddressed, Memory, Recurrent
from jaxmeta.outer import meta_gradient, policy_optimisation, pretraining, reptile
from jaxmeta.settings import Settings
from jaxmeta.update_rules import BY_HAND, UpdateRule, learned_step_sizes

ENTRY_POINTS = "jaxmeta.recipes"


class Recipe(NamedTuple):
    """A method by name."""

    summary: str
    build: Callable[[Parts], MetaLearner]
    settings: Mapping[str, dict[str, Any]] = MappingProxyType({})
    """By task family, settings that differ from those of `presets`."""
    everywhere: Mapping[str, Any] = MappingProxyType({})
    """Settings that differ in every family; those of `settings` take precedence."""


def available() -> dict[str, str]:
    """Names of the recipes, installed packages' own among them, each with one line about it."""
    return {name: find(name).summary for name in [*RECIPES, *plugins.entry_points(ENTRY_POINTS)]}


def find(name: str) -> Recipe:
    """The recipe of a name.

    Args:
      name: ours, or an entry point of the group `jaxmeta.recipes`, or `package.module:function`. Whose object is not
        ours is a `Recipe` or its `build`, a function of `Parts` that returns a `MetaLearner`.

    Raises:
      UsageError: there is none.
    """
    if name in RECIPES:
        return RECIPES[name]
    if ":" in name:
        found = plugins.import_function("recipe", name)
    else:
        points = plugins.entry_points(ENTRY_POINTS)
        require_known("recipe", name, [*RECIPES, *points])
        found = points[name].load()
    if isinstance(found, Recipe):
        return found
    return Recipe((inspect.getdoc(found) or "").split("\n")[0], found)


def make_recipe(name: str, tasks: TaskDistribution, **settings: Any) -> MetaLearner:
    """Composes a method for a task distribution.

    Args:
      name: one of `available()`, or `package.module:function`; see `find`.
      tasks: what it is trained on.
      **settings: fields of the dataclasses in `jaxmeta.config`, by name.

    Raises:
      UsageError: an unknown name or setting, a value that is out of range or does not suit the tasks, or a function
        that builds something else.
    """
    parts = make_parts(tasks, resolve_settings(name, tasks, **settings))
    learner = find(name).build(parts)
    return learner if name in RECIPES else contracts.require_learner(name, learner, tasks)


def resolve_settings(name: str, tasks: TaskDistribution, **settings: Any) -> dict[str, Any]:
    """The complete settings of a recipe: a user's own, over what suits the recipe and the family, over the defaults.

    Where no agent is asked for it is `actor_critic` if actions are continuous.
    """
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


def _trained_by(rule: Callable, **options: Any) -> Callable[[Parts], MetaLearner]:
    """A gradient-based method: an outer rule, and what sets its adapter apart."""

    def build(parts: Parts) -> MetaLearner:
        return compose(parts, learner_by_gradient(parts, **options), rule)

    return build


def _meta_sgd(parts: Parts) -> MetaLearner:
    rule = learned_step_sizes(parts.settings.hypers.learning_rate)
    return compose(parts, learner_by_gradient(parts, rule=rule))


def _learned_rule(parts: Parts) -> MetaLearner:
    """Every lifetime starts from fresh parameters; what is learned is how they change."""
    adapter = learner_by_gradient(parts, rule=update_rule(parts.settings), fresh=True)
    return compose(parts, adapter, learned=lambda path: path[0].name == "rule")


def update_rule(settings: Settings) -> UpdateRule:
    """The learned rule that settings ask for."""
    config = settings.rule
    networks: dict[str, Callable[[int], Network]] = {
        "structured": Structured,
        "recurrent": lambda num_layers: RecurrentRule(config.rule_width, config.rule_cell),
        "attention": lambda num_layers: AttentiveRule(config.rule_width),
    }
    return learned_rule(networks[config.rule], config.rule_base)


def _hyper_policy(parts: Parts) -> MetaLearner:
    """Every lifetime starts from fresh parameters; what is learned is how their learning is set."""
    tasks, settings = parts.tasks, parts.settings
    form, agent = settings.governor.form, settings.agent
    rule = "have action values for hyper_policy, which sets how they are learned"
    require(not parts.agent.on_policy, "agent", rule, agent.agent)
    described = form == "static"
    description = jax.eval_shape(lambda key: tasks.describe(tasks.sample(key, "train")), jax.random.key(0))
    rule = f"see something of a task, of which {tasks.name} tells nothing"
    require(not described or description.size > 0, "form", rule, form)

    def pose(key: Key, env_params: PyTree) -> Task:
        del key
        return Task(env_params, tasks.describe(env_params) if described else None)

    learner = learner_by_gradient(parts, fresh=True, slow_targets=True, adapts=lambda path: path[0].key != "structure")
    layers = len(agent.hidden) if agent.structure else 0
    width, rounds = settings.governor.policy_width, settings.lifetime.rounds
    adapter = hyper_policy(learner, form, description.size, width, rounds, layers)
    return compose(parts, adapter, learned=lambda path: path[0].name == "policy", pose=pose)


def _reptile(parts: Parts) -> MetaLearner:
    """Reptile has no gradient that a second life could be the baseline of."""
    lives = parts.settings.outer.lives_per_task
    require(lives == 1, "lives_per_task", "be 1 for reptile, which does not learn to explore", lives)
    return _trained_by(reptile)(parts)


def _in_context(network_of: Callable[[Settings, int], Memory]) -> Callable[[Parts], MetaLearner]:
    """A policy with a memory, trained on whole lifetimes; `network_of(settings, outputs)` has the memory."""

    def build(parts: Parts) -> MetaLearner:
        tasks, spec, settings = parts.tasks, parts.spec, parts.settings
        lifetime, outer, config = settings.lifetime, settings.outer, settings.proximal
        require_minibatches(outer, config)
        actions = distributions.of_actions(spec)
        adapter = in_context(network_of(settings, actions.size), spec, actions)
        discount = settings.hypers.discount
        optimizer = outer_optimizer(outer, config.epochs * config.minibatches)
        entropy = optax.linear_schedule(outer.entropy, outer.entropy * config.entropy_left, outer.meta_steps)
        init, update = policy_optimisation(
            tasks.env,
            adapter,
            actions,
            no_context,
            optimizer,
            lifetime,
            config,
            settings.policy,
            discount,
            entropy,
        )
        return learner_of(parts, adapter, init, update, lifetime.rounds * lifetime.envs * lifetime.steps)

    return build


def _steps_of_trial(settings: Settings) -> int:
    return settings.lifetime.rounds * settings.lifetime.steps


def _span(settings: Settings) -> int:
    return settings.memory.span or _steps_of_trial(settings)


def _recurrent(settings: Settings, outputs: int) -> Memory:
    memory = settings.memory
    return Recurrent(outputs, memory.cell, memory.memory_width, memory.reading, _span(settings))


def _content_addressed(settings: Settings, outputs: int) -> Memory:
    memory = settings.memory
    require(memory.slots >= memory.heads, "slots", f"be at least heads = {memory.heads}, a read each", memory.slots)
    return ContentAddressed(outputs, memory.memory_width, memory.slots, memory.word, memory.heads, _span(settings))


def _attentive(settings: Settings, outputs: int) -> Memory:
    memory, trial = settings.memory, _steps_of_trial(settings)
    context = memory.context or trial
    require(context >= trial, "context", f"be at least {trial}, the steps of a trial", context)
    divides = memory.memory_width % memory.heads == 0
    require(divides, "heads", f"divide memory_width = {memory.memory_width}", memory.heads)
    # One place more than a trial has steps: after the trial, what it led to is asked for.
    return Attentive(
        outputs, memory.memory_width, memory.attention_layers, memory.heads, context + settings.lifetime.steps
    )


def _scratch(parts: Parts) -> MetaLearner:
    """Nothing is learned across tasks: every lifetime starts from fresh parameters."""
    settings = parts.settings
    rule = BY_HAND[settings.inner.inner_optimizer]
    adapter = gradient_steps(
        parts.agent, parts.spec, settings.lifetime, settings.inner, parts.hypers, rule=rule, fresh=True
    )

    def init(key):
        return MetaState(meta=adapter.init(key), optimizer=None, step=jnp.zeros((), jnp.int32), carried=None)

    def update(key, state, env_params):
        del key, env_params
        nothing = jnp.zeros(())
        return state.replace(step=state.step + 1), {"loss": nothing, "return": nothing}

    return learner_of(parts, adapter, init, update, env_steps_per_task=0)


def _finetune(parts: Parts) -> MetaLearner:
    """One learner trained on all tasks at once, then adapted as it stands."""
    tasks, spec, settings, agent, hypers, _ = parts
    lifetime, batch = settings.lifetime, settings.outer.tasks_per_batch
    wide = LifetimeConfig(envs=lifetime.envs * batch, steps=lifetime.steps, rounds=lifetime.rounds)
    rule = BY_HAND[settings.inner.inner_optimizer]
    learner = gradient_steps(agent, spec, wide, settings.inner, hypers, rule=rule)
    init, update = pretraining(tasks.env, learner, no_context, lifetime)
    adapter = gradient_steps(agent, spec, lifetime, settings.inner, hypers, rule=rule)
    return learner_of(parts, adapter, init, update, lifetime.envs * lifetime.steps)


RECIPES = {
    "maml": Recipe("MAML: learns where gradient steps start from.", _trained_by(meta_gradient)),
    "fomaml": Recipe(
        "First-order MAML: MAML with the inner gradients held constant.",
        _trained_by(meta_gradient, first_order=True),
        {"grid_navi": {"inner_steps": 10, "learning_rate": 0.3, "outer_learning_rate": 1e-3}},
    ),
    "anil": Recipe(
        "ANIL: MAML whose inner loop changes the last layer alone.", _trained_by(meta_gradient, adapts=in_head)
    ),
    "meta_sgd": Recipe("Meta-SGD: MAML with one learned step size per parameter.", _meta_sgd),
    "reptile": Recipe(
        "Reptile: moves the start towards where lifetimes end; no meta-gradient.",
        _reptile,
        {name: {"lives_per_task": 1, "tasks_per_batch": 20} for name in ("grid_navi", "maze")},
    ),
    "learned_rule": Recipe(
        "Learned update rule: a network sets how far and along which mix of momenta parameters move.",
        _learned_rule,
        presets.RULES,
        presets.ON_LONG_LIVES,
    ),
    "hyper_policy": Recipe(
        "A policy that sets Q-learning's step size, discount, exploration, targets and mixing, round by round.",
        _hyper_policy,
        presets.GOVERNORS,
        presets.ON_LONG_LIVES,
    ),
    "rl2": Recipe(
        "RL^2: a recurrent policy whose memory learns, trained by PPO on whole trials.",
        _in_context(_recurrent),
        presets.TRIALS,
        presets.ON_TRIALS,
    ),
    "mann": Recipe(
        "MANN: the same with a memory that is read by content and written where least was used.",
        _in_context(_content_addressed),
        presets.TRIALS,
        presets.ON_TRIALS,
    ),
    "snail": Recipe(
        "The same with causal attention over all steps of a trial, after SNAIL.",
        _in_context(_attentive),
        presets.TRIALS,
        presets.ON_TRIALS,
    ),
    "scratch": Recipe("Baseline: the same agent from a random start.", _scratch),
    "finetune": Recipe("Baseline: one agent trained on all tasks, then adapted.", _finetune),
}
