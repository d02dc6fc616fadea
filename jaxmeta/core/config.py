"""Configurations: frozen, typed records that check themselves.

The configuration of an algorithm is a tree of them; `settings` names what is in it.
"""

import functools
import operator
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, inspect, structs

from jaxmeta.core.errors import as_kind, require, require_finite, require_known

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
NonNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
TRACED = Meta(extra={"traced": True})
"""Marks a hyper-parameter that compiled programs take as an argument: one program serves all its values."""
DEFAULT = "default"
"""What a file or a command line calls a record that has no other beside it."""
BOUNDS = {
    "gt": (">", "above", operator.gt),
    "ge": (">=", "at least", operator.ge),
    "lt": ("<", "below", operator.lt),
    "le": ("<=", "at most", operator.le),
}
"""By name of a bound: its sign, what a sentence says, and what holds of a value and the limit."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen record whose values are of the types of its fields, and within their bounds."""

    def __post_init__(self):
        for name, kind in kinds(type(self)).items():
            structs.force_setattr(self, name, checked(name, getattr(self, name), kind))


@functools.cache
def kinds(config: type[Config]) -> dict[str, inspect.Type]:
    """By field, what values it takes."""
    return {field.name: _plain(inspect.type_info(field.type)) for field in structs.fields(config)}


@functools.cache
def traced_fields(config: type[Config]) -> frozenset[str]:
    """The fields that are marked as `TRACED`."""
    types = {field.name: inspect.type_info(field.type) for field in structs.fields(config)}
    return frozenset(name for name, kind in types.items() if isinstance(kind, inspect.Metadata) and kind.extra)


def records_of(kind: inspect.Type) -> dict[str, type[Config]]:
    """The records that a field may hold, by the name that a file or a command line calls each; of other fields none."""
    options = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    records = [
        option.cls for option in options if isinstance(option, inspect.StructType) and issubclass(option.cls, Config)
    ]
    return {str(record.__struct_config__.tag or DEFAULT): record for record in records}


def is_optional(kind: inspect.Type) -> bool:
    """Whether a field may hold None."""
    return isinstance(kind, inspect.UnionType) and any(isinstance(option, inspect.NoneType) for option in kind.types)


def tag_of(config: Config) -> str | None:
    """What a record is called among those that may stand in its place."""
    return config.__struct_config__.tag  # pyright: ignore[reportReturnType]


def checked(name: str, value: Any, kind: inspect.Type) -> Any:
    """The value as one of its kind.

    Raises:
      UsageError: it is none.
    """
    if records := records_of(kind):
        if value is None and is_optional(kind):
            return None
        expected = " or ".join(sorted(record.__name__ for record in records.values()))
        require(isinstance(value, tuple(records.values())), name, f"be of type {expected}", value)
        return value
    match kind:
        case inspect.BoolType():
            return as_kind(name, value, bool)
        case inspect.LiteralType(values=known):
            require_known(name, as_kind(name, value, str), map(str, known))
        case inspect.VarTupleType(item_type=item):
            value = as_kind(name, value, tuple)
            for _, words, holds, limit in _limits(item):
                require(all(holds(entry, limit) for entry in value), name, f"hold integers of {words} {limit}", value)
        case inspect.IntType() | inspect.FloatType():
            value = as_kind(name, value, int if isinstance(kind, inspect.IntType) else float)
            require_finite(name, value)
            for _, words, holds, limit in _limits(kind):
                require(holds(value, limit), name, f"be {words} {limit}", value)
    return value


def spelled(kind: inspect.Type) -> str:
    """What values a field takes, in a few words.

    >>> spelled(kinds(AdaptationConfig)["num_envs"])
    'integer >= 1'
    """
    if records := records_of(kind):
        return ", ".join([*records, *(["none"] if is_optional(kind) else [])])
    match kind:
        case inspect.BoolType():
            return "true, false"
        case inspect.LiteralType(values=known):
            return ", ".join(map(str, known))
        case inspect.VarTupleType(item_type=item):
            return f"integers {_signs(item)}"
        case inspect.IntType():
            return f"integer {_signs(kind)}"
    return f"number {_signs(kind)}"


def _plain(kind: inspect.Type) -> inspect.Type:
    """Without what is said beside the type."""
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _signs(kind: inspect.Type) -> str:
    return " ".join(f"{sign} {limit}" for sign, _, _, limit in _limits(kind))


def _limits(kind: inspect.Type) -> list[tuple[str, str, Callable[[float, float], bool], float]]:
    """The bounds that a field has, as `BOUNDS` has them, each with its limit."""
    kind = _plain(kind)
    limits = {bound: getattr(kind, bound) for bound in BOUNDS}
    return [(*BOUNDS[bound], limit) for bound, limit in limits.items() if limit is not None]


class AdaptationConfig(Config, frozen=True, kw_only=True):
    """How long a lifetime is: so many times (a rollout in each environment, then one adaptation)."""

    num_envs: Count = 16
    """Environments of the same task, side by side."""
    rollout_length: Natural = 0
    """Steps of a rollout in each environment; 0 stands for the task family's horizon, one episode."""
    num_adaptations: Count = 3
    """Rollouts, each followed by one adaptation."""

    def within(self, horizon: int) -> "AdaptationConfig":
        """The same with the length of a rollout in steps, which is an episode's where none is set."""
        return structs.replace(self, rollout_length=self.rollout_length or horizon)

    @property
    def env_steps(self) -> int:
        """Environment steps of a lifetime, once the length of a rollout is known."""
        return self.num_adaptations * self.num_envs * self.rollout_length


class AgentConfig(Config, frozen=True, kw_only=True, tag_field="type"):
    """What all agents have; the subclass is chosen by its name, `--agent NAME`."""

    discount: Annotated[Fraction, TRACED] = 0.95
    """Weight of the next step's value."""
    target_step_size: Annotated[Fraction, TRACED] = 1.0
    """Share of the way that target parameters move towards the newest at each update; 1: they are the newest."""


class AlgorithmConfig(Config, frozen=True, kw_only=True):
    """What every algorithm has; each has a subclass of this, whose fields are all that it can be given."""

    adaptation: AdaptationConfig = AdaptationConfig()
    meta_steps: Count = 1000
    """Meta-steps of a whole run."""

    families: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """By task family, the settings that suit it, by path."""
    policy_families: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """The same where the agent is a policy."""
    unread: ClassVar[frozenset[str]] = frozenset()
    """Paths of settings that records have for others, and that this algorithm makes no use of."""

    @property
    def algorithm(self) -> str:
        """The name of the algorithm, read off that of the class: `MetaSGDConfig` is of `meta_sgd`."""
        words = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(self).__name__.removesuffix("Config"))
        return words.lower()
