"""All settings of a recipe, sorted into the groups of `config`; read from text, and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import asdict, fields

from jaxmeta.core.config import (
    AgentConfig,
    EstimationConfig,
    GovernorConfig,
    HyperConfig,
    HypernetworkConfig,
    InnerConfig,
    LifetimeConfig,
    MappingConfig,
    MemoryConfig,
    OuterConfig,
    PolicyConfig,
    ProximalConfig,
    RuleConfig,
)
from jaxmeta.core.errors import require_known
from jaxmeta.core.tasks import read_value

GROUPS = {
    "lifetime": LifetimeConfig,
    "agent": AgentConfig,
    "policy": PolicyConfig,
    "inner": InnerConfig,
    "rule": RuleConfig,
    "governor": GovernorConfig,
    "hypernetwork": HypernetworkConfig,
    "mapping": MappingConfig,
    "memory": MemoryConfig,
    "outer": OuterConfig,
    "estimation": EstimationConfig,
    "proximal": ProximalConfig,
    "hypers": HyperConfig,
}
FIELD_GROUP = {field.name: group for group, kind in GROUPS.items() for field in fields(kind)}


def default_of(name: str) -> Any:
    """The value of a setting that nobody sets."""
    return getattr(GROUPS[FIELD_GROUP[name]](), name)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All static choices and starting hyper-parameters of a recipe, in groups."""

    lifetime: LifetimeConfig
    agent: AgentConfig
    policy: PolicyConfig
    inner: InnerConfig
    rule: RuleConfig
    governor: GovernorConfig
    hypernetwork: HypernetworkConfig
    mapping: MappingConfig
    memory: MemoryConfig
    outer: OuterConfig
    estimation: EstimationConfig
    proximal: ProximalConfig
    hypers: HyperConfig

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> "Settings":
        """Sorts settings into their groups; a name nobody has and a value of another type are refused."""
        grouped: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
        for name, value in flat.items():
            require_known("setting", name, FIELD_GROUP)
            grouped[FIELD_GROUP[name]][name] = value
        return cls(**{group: kind(**grouped[group]) for group, kind in GROUPS.items()})

    def flat(self) -> dict[str, Any]:
        """The settings by field name, JSON-able."""
        merged = {name: value for group in GROUPS for name, value in asdict(getattr(self, group)).items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in merged.items()}


def parse_settings(texts: Mapping[str, str]) -> dict[str, Any]:
    """Reads settings that were written as text, each as the type of its default.

    >>> parse_settings({"rounds": "3", "hidden": "32,32"})
    {'rounds': 3, 'hidden': (32, 32)}
    """
    parsed = {}
    for name, text in texts.items():
        require_known("--set", name, FIELD_GROUP)
        parsed[name] = read_value(name, text, type(default_of(name)))
    return parsed
