"""Methods, each composed in a few lines from an agent, an adapter, an objective and an outer rule."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta import contracts, distributions, plugins, presets
from jaxmeta.adapters import gradient_steps, in_context, in_head
from jaxmeta.agents import actor_critic, dqn, tabular_q
from jaxmeta.base import Adapter, Agent, Hypers, MetaLearner, MetaState, Objective, PyTree, Spec, Task, TaskDistribution
from jaxmeta.config import LifetimeConfig, OuterConfig, ProximalConfig
from jaxmeta.errors import UsageError, require, require_known
from jaxmeta.memories import Attentive, ContentAddressed, Memory, Recurrent
from jaxmeta.objectives import OUTER_LOSSES, post_adaptation
from jaxmeta.outer import meta_gradient, policy_optimisation, pretraining, proximal, reptile
from jaxmeta.outer.descent import Init, Update
from jaxmeta.settings import Settings

ENTRY_POINTS = "jaxmeta.recipes"
AGENTS: dict[str, Callable[[Spec, Settings], Agent]] = {
    "dqn": lambda spec, settings: dqn(spec, settings.agent),
    "tabular_q": lambda spec, settings: tabular_q(spec, settings.agent),
    "actor_critic": lambda spec, settings: actor_critic(spec, settings.agent, settings.policy),
}


class Parts(NamedTuple):
    """What every recipe is composed of."""

    tasks: TaskDistribution
    spec: Spec
    settings: Settings
    agent: Agent
    hypers: Hypers
    optimizer: optax.GradientTransformation


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


def make_parts(tasks: TaskDistribution, settings: Mapping[str, Any]) -> Parts:
    """Builds what recipes share, from complete settings."""
    grouped = Settings.from_flat(settings)
    spec = spec_of(tasks)
    hypers = Hypers(**{name: jnp.asarray(value, jnp.float32) for name, value in asdict(grouped.hypers).items()})
    agent = AGENTS[grouped.agent.agent](spec, grouped)
    return Parts(tasks, spec, grouped, agent, hypers, outer_optimizer(grouped.outer))


def outer_optimizer(outer: OuterConfig, steps_per_meta_step: int = 1) -> optax.GradientTransformation:
    """Adam behind a limit on the gradient's norm, as the settings say."""
    rate = outer.outer_learning_rate
    if outer.learning_rate_left < 1:
        steps = outer.meta_steps * steps_per_meta_step
        rate = optax.linear_schedule(rate, rate * outer.learning_rate_left, steps)
    return optax.chain(optax.clip_by_global_norm(outer.max_gradient_norm), optax.adam(rate))


def spec_of(tasks: TaskDistribution) -> Spec:
    """Reads shapes and dtypes off one task of a distribution by tracing; the range of continuous actions off two."""
    sizes = []

    def look(key):
        env_params = tasks.sample(key, "train")
        observations, actions = tasks.env.observation_space(env_params), tasks.env.action_space(env_params)
        sizes.extend([getattr(observations, "n", None), getattr(actions, "n", None)])
        return tasks.env.reset(key, env_params)[0], actions.sample(key)

    observation, action = jax.eval_shape(look, jax.random.key(0))
    num_observations, num_actions = sizes
    action_range = None if num_actions is not None else _range_of_actions(tasks, action.shape)
    return Spec(observation, action, num_observations, num_actions, action_range)


def _range_of_actions(tasks: TaskDistribution, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    def bounds(key):
        space = tasks.env.action_space(tasks.sample(key, "train"))
        return jnp.broadcast_to(space.low, shape), jnp.broadcast_to(space.high, shape)

    (low, other_low), (high, other_high) = map(
        np.asarray, jax.jit(jax.vmap(bounds))(jax.random.split(jax.random.key(0)))
    )
    shared = np.array_equal(low, other_low) and np.array_equal(high, other_high)
    return (low, high) if shared and np.all(np.isfinite(high - low)) else None


def _no_context(key: jax.Array, env_params: PyTree) -> Task:
    del key
    return Task(env_params, None)


def learner_by_gradient(parts: Parts, **options: Any) -> Adapter:
    """The adapter of MAML and its kin; the options are those of `adapters.gradient_steps`."""
    settings = parts.settings
    if settings.inner.inner_optimizer != "sgd":
        raise UsageError(
            "inner_optimizer must be 'sgd' where parameters are meta-learned by gradient, "
            f"got {settings.inner.inner_optimizer!r}."
        )
    options = {"slow_targets": settings.hypers.target_step_size != 1} | options
    return gradient_steps(parts.agent, parts.spec, settings.lifetime, settings.inner, parts.hypers, **options)


def scored(parts: Parts, adapter: Adapter) -> Objective:
    """The objective that the settings ask for: what each round arrives at, scored on fresh episodes.

    Raises:
      UsageError: the settings do not suit the outer loss.
    """
    tasks, settings = parts.tasks, parts.settings
    actions = distributions.of_actions(parts.spec)
    by_policy = settings.outer.outer_loss == "policy_gradient"
    if parts.agent.on_policy:
        rule = f"be 'policy_gradient' for agent {settings.agent.agent!r}, which has no action values"
        require(by_policy, "outer_loss", rule, settings.outer.outer_loss)
    elif by_policy:
        rule = "be above 0 under outer_loss 'policy_gradient', which scores a softmax policy"
        require(settings.hypers.temperature > 0, "temperature", rule, settings.hypers.temperature)
    outer_loss = OUTER_LOSSES[settings.outer.outer_loss](adapter, parts.agent, actions, settings.outer)
    return post_adaptation(tasks.env, adapter, actions, settings.lifetime, outer_loss, settings.outer, tasks.horizon)


def compose(parts: Parts, adapter: Adapter, rule: Callable = meta_gradient) -> MetaLearner:
    """Joins an adapter, the objective that the settings ask for, and an outer rule.

    Args:
      parts: what the recipe was given.
      adapter: how the learner lives.
      rule: one of `outer`, such as `meta_gradient` or `reptile`.

    Raises:
      UsageError: the settings do not suit the outer loss.
    """
    lifetime, outer = parts.settings.lifetime, parts.settings.outer
    objective = scored(parts, adapter)
    if outer.outer_update == "proximal":
        init, update = _within_a_trust_region(parts, adapter, rule)
    else:
        init, update = rule(adapter, objective, _no_context, parts.optimizer, outer.tasks_per_group)
    queries = lifetime.rounds + outer.scores_before
    env_steps_of_life = lifetime.rounds * lifetime.envs * lifetime.steps
    env_steps_of_queries = queries * outer.query_envs * parts.tasks.horizon
    env_steps = outer.lives_per_task * (env_steps_of_life + env_steps_of_queries)
    return _learner(parts, adapter, init, update, env_steps)


def _learner(parts: Parts, adapter: Adapter, init: Init, update: Update, env_steps_per_task: int) -> MetaLearner:
    """What the recipes here have in common: they see no context, and adapt with all that they have learned."""
    return MetaLearner(
        init=init,
        update=update,
        task=_no_context,
        adapter=adapter,
        meta=lambda state: state.meta,
        lifetime=parts.settings.lifetime,
        tasks_per_batch=parts.settings.outer.tasks_per_batch,
        env_steps_per_task=env_steps_per_task,
    )


def _within_a_trust_region(parts: Parts, adapter: Adapter, rule: Callable) -> tuple[Init, Update]:
    """The outer rule `proximal` in place of `meta_gradient`."""
    tasks, lifetime, outer, config = parts.tasks, parts.settings.lifetime, parts.settings.outer, parts.settings.proximal
    suits = rule is meta_gradient and parts.agent.on_policy and outer.lives_per_task == 1
    rule_of_use = "be 'descent' but for a meta-gradient, agent 'actor_critic' and lives_per_task 1"
    require(suits, "outer_update", rule_of_use, outer.outer_update)
    _require_minibatches(outer, config)
    optimizer = outer_optimizer(outer, config.epochs * config.minibatches)
    actions = distributions.of_actions(parts.spec)
    return proximal(tasks.env, adapter, actions, _no_context, optimizer, lifetime, outer, config, tasks.horizon)


def _require_minibatches(outer: OuterConfig, config: ProximalConfig) -> None:
    divides = outer.tasks_per_batch % config.minibatches == 0
    require(divides, "minibatches", f"divide tasks_per_batch = {outer.tasks_per_batch}", config.minibatches)


def _trained_by(rule: Callable, **options: Any) -> Callable[[Parts], MetaLearner]:
    """A gradient-based method: an outer rule, and what sets its adapter apart."""

    def build(parts: Parts) -> MetaLearner:
        return compose(parts, learner_by_gradient(parts, **options), rule)

    return build


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
        _require_minibatches(outer, config)
        actions = distributions.of_actions(spec)
        adapter = in_context(network_of(settings, actions.size), spec, actions)
        discount = settings.hypers.discount
        optimizer = outer_optimizer(outer, config.epochs * config.minibatches)
        entropy = optax.linear_schedule(outer.entropy, outer.entropy * config.entropy_left, outer.meta_steps)
        init, update = policy_optimisation(
            tasks.env,
            adapter,
            actions,
            _no_context,
            optimizer,
            lifetime,
            config,
            settings.policy,
            discount,
            entropy,
        )
        return _learner(parts, adapter, init, update, lifetime.rounds * lifetime.envs * lifetime.steps)

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
    adapter = gradient_steps(parts.agent, parts.spec, settings.lifetime, settings.inner, parts.hypers, fresh=True)

    def init(key):
        return MetaState(meta=adapter.init(key), optimizer=None, step=jnp.zeros((), jnp.int32), carried=None)

    def update(key, state, env_params):
        del key, env_params
        nothing = jnp.zeros(())
        return state.replace(step=state.step + 1), {"loss": nothing, "return": nothing}

    return _learner(parts, adapter, init, update, env_steps_per_task=0)


def _finetune(parts: Parts) -> MetaLearner:
    """One learner trained on all tasks at once, then adapted as it stands."""
    tasks, spec, settings, agent, hypers, _ = parts
    lifetime, batch = settings.lifetime, settings.outer.tasks_per_batch
    wide = LifetimeConfig(envs=lifetime.envs * batch, steps=lifetime.steps, rounds=lifetime.rounds)
    learner = gradient_steps(agent, spec, wide, settings.inner, hypers)
    init, update = pretraining(tasks.env, learner, _no_context, lifetime)
    adapter = gradient_steps(agent, spec, lifetime, settings.inner, hypers)
    return _learner(parts, adapter, init, update, lifetime.envs * lifetime.steps)


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
    "meta_sgd": Recipe(
        "Meta-SGD: MAML with one learned step size per parameter.", _trained_by(meta_gradient, learned_step_sizes=True)
    ),
    "reptile": Recipe(
        "Reptile: moves the start towards where lifetimes end; no meta-gradient.",
        _reptile,
        {name: {"lives_per_task": 1, "tasks_per_batch": 20} for name in ("grid_navi", "maze")},
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
