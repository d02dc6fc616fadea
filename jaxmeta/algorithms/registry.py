"""Algorithms by name, and their configurations for task families."""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, get_type_hints

from msgspec import structs

from jaxmeta.core import contracts, registry
from jaxmeta.core.config import AgentConfig, AlgorithmConfig, kinds, records_of, tag_of
from jaxmeta.core.errors import UsageError, Words, as_kind, reported, require, require_known
from jaxmeta.core.settings import flattened, paths_of, replaced, settings_of, shortest, with_values
from jaxmeta.core.spec import spec_of
from jaxmeta.core.tasks import as_distribution
from jaxmeta.core.types import MetaLearner, TaskDistribution
from jaxmeta.rl import ActorCriticConfig

ENTRY_POINTS = "jaxmeta.algorithms"
ALGORITHMS = {
    "maml": "jaxmeta.algorithms.maml:maml",
    "fomaml": "jaxmeta.algorithms.maml:fomaml",
    "anil": "jaxmeta.algorithms.maml:anil",
    "meta_sgd": "jaxmeta.algorithms.maml:meta_sgd",
    "reptile": "jaxmeta.algorithms.reptile:reptile",
    "learned_optimizer": "jaxmeta.algorithms.learned_optimizer:learned_optimizer",
    "hyper_policy": "jaxmeta.algorithms.hyper_policy:hyper_policy",
    "hypernetwork": "jaxmeta.algorithms.hypernetwork:hypernetwork",
    "mapping": "jaxmeta.algorithms.mapping:mapping",
    "rl2": "jaxmeta.algorithms.rl2:rl2",
    "mann": "jaxmeta.algorithms.rl2:mann",
    "snail": "jaxmeta.algorithms.rl2:snail",
    "scratch": "jaxmeta.algorithms.baselines:scratch",
    "finetune": "jaxmeta.algorithms.baselines:finetune",
}
"""Ours, by name: where each function stands."""

Make = Callable[..., MetaLearner]
"""`make(tasks, config)` composes a learner; `config` has a type, a subclass of `AlgorithmConfig`, and a default."""


class Algorithm(NamedTuple):
    """An algorithm by name."""

    name: str
    make: Make
    config: type[AlgorithmConfig]

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        return (inspect.getdoc(self.make) or "").split("\n")[0]


def available() -> dict[str, str]:
    """Names of the algorithms, installed packages' own among them, each with one line about it."""
    return {name: find(name).summary for name in [*ALGORITHMS, *registry.entry_points(ENTRY_POINTS)]}


def is_imported(name: str) -> bool:
    """Whether a name is that of something which `find` imports by its path.

    >>> is_imported("maml"), is_imported("my.module:method")
    (False, True)
    """
    return ":" in name


def find(name: str) -> Algorithm:
    """The algorithm of a name.

    Args:
      name: ours, or an entry point of the group `jaxmeta.algorithms`, or `package.module:name`: a function of tasks and
        a configuration.

    Raises:
      UsageError: there is none, or it is something else.
    """
    if as_kind("algorithm", name, str) in ALGORITHMS:
        make = pkgutil.resolve_name(ALGORITHMS[name])
    elif is_imported(name):
        make = registry.import_object("algorithm", name)
    else:
        points = registry.entry_points(ENTRY_POINTS)
        require_known("algorithm", name, [*ALGORITHMS, *points])
        make = points[name].load()
    return Algorithm(name, make, _config_of(name, make))


def _config_of(name: str, make: Any) -> type[AlgorithmConfig]:
    """The type of an algorithm's settings, read off its signature."""
    require(registry.is_function(make), name, "be a function of tasks and a configuration", make)
    rule = "take a `config` that is annotated by a subclass of AlgorithmConfig"
    try:
        kind = get_type_hints(make).get("config")
    except (NameError, TypeError) as error:  # an annotation that names nothing, or no function
        raise UsageError(name, rule, Words(reported(error))) from error
    if not (inspect.isclass(kind) and issubclass(kind, AlgorithmConfig)):
        raise UsageError(name, rule, kind)
    return kind


def configure(
    name: str, tasks: str | TaskDistribution, settings: Mapping[str, Any] | AlgorithmConfig = MappingProxyType({})
) -> AlgorithmConfig:
    """The complete configuration of an algorithm: settings that are given, over what suits the family, over defaults.

    Where no agent is given it is a policy if actions are continuous.

    Args:
      name: of the algorithm.
      tasks: what it is to be trained on, or a specification of it.
      settings: by path, or by its last words, see `core.settings`; nested as `config.json` holds them; or a complete
        configuration.

    Raises:
      UsageError: an unknown name or setting, or a value that is out of range.
    """
    algorithm, tasks = find(name), as_distribution(tasks)
    if isinstance(settings, AlgorithmConfig):
        rule = f"be of type {algorithm.config.__name__} for {name}"
        require(isinstance(settings, algorithm.config), "settings", rule, type(settings).__name__)
        return _at_horizon(settings, tasks)
    given = flattened(settings)
    config = algorithm.config()
    if "agent" in given:
        config = replaced(config, {"agent": given["agent"]}, name)
    elif _chooses_policies(algorithm.config) and spec_of(tasks).num_actions is None:
        config = replaced(config, {"agent": "actor_critic"})
    agent = getattr(config, "agent", None)
    table = config.policy_families if isinstance(agent, ActorCriticConfig) else config.families
    suited = {**tasks.suggested, **table.get(tasks.name.partition(":")[0], {})}
    if "agent" in given:
        suited.pop("agent", None)
    elif "agent" in suited:
        config = replaced(config, {"agent": suited.pop("agent")})
    known = set(paths_of(config))
    config = with_values(config, {path: value for path, value in suited.items() if path in known})
    return _at_horizon(replaced(config, given, name), tasks)


def make_learner(
    name: str, tasks: str | TaskDistribution, settings: Mapping[str, Any] | AlgorithmConfig = MappingProxyType({})
) -> MetaLearner:
    """Composes an algorithm for a task distribution; it takes what `configure` does.

    Raises:
      UsageError: as `configure`; settings that do not suit one another or the tasks, or a function that builds
        something else.
    """
    tasks = as_distribution(tasks)
    return compose(name, tasks, configure(name, tasks, settings))


def compose(name: str, tasks: TaskDistribution, config: AlgorithmConfig) -> MetaLearner:
    """Composes an algorithm from its complete configuration."""
    learner = find(name).make(tasks, config)
    if name not in ALGORITHMS:
        contracts.require_learner(name, learner, tasks)
    return learner._replace(name=name, config=config)


def agent_of(config: AlgorithmConfig) -> str | None:
    """The name of its agent; None where it has none, as learners in context."""
    agent = getattr(config, "agent", None)
    return tag_of(agent) if isinstance(agent, AgentConfig) else None


def changed_settings(name: str, tasks: str | TaskDistribution, config: AlgorithmConfig) -> dict[str, Any]:
    """The settings that differ from those that suit the tasks and the agent, by short name.

    >>> changed_settings("maml", "probe", configure("maml", "probe", {"num_adaptations": 77}))
    {'num_adaptations': 77}
    """
    usual, agent = configure(name, tasks), agent_of(config)
    changed: dict[str, Any] = {}
    if agent is not None and agent != agent_of(usual):  # which has other settings by itself
        usual, changed = configure(name, tasks, {"agent": agent}), {"agent": agent}
    own, known = settings_of(usual), list(paths_of(config))
    changed |= {path: value for path, value in settings_of(config).items() if own.get(path, ...) != value}
    return {shortest(path, known): value for path, value in changed.items()}


def _chooses_policies(config: type[AlgorithmConfig]) -> bool:
    """Whether a policy is among the agents that an algorithm may have."""
    agent = kinds(config).get("agent")
    return agent is not None and ActorCriticConfig in records_of(agent).values()


def _at_horizon(config: AlgorithmConfig, tasks: TaskDistribution) -> AlgorithmConfig:
    """With the length of a rollout in steps."""
    return structs.replace(config, adaptation=config.adaptation.within(tasks.horizon))
