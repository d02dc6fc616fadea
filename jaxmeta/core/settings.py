"""The settings of a configuration by name: listed, read from text or a file, and changed.

A setting is named by its path in the tree of records, `inner.num_steps`, or by the path's last words where no other
setting ends in them, `num_steps`.
"""

import difflib
import functools
import json
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect, structs

from jaxmeta.core import synonyms
from jaxmeta.core.config import AlgorithmConfig, Config, checked, is_optional, kinds, records_of, tag_of, traced_fields
from jaxmeta.core.errors import UsageError, require, require_known

C = TypeVar("C", bound=Config)
TYPE = "type"
"""The key by which a file says which of several records a nested one is."""
MOST_HINTS = 5


class Text(str):
    """A value as it is written on a command line."""

    __slots__ = ()


def settings_of(config: Config) -> dict[str, Any]:
    """Every setting by its path; of a record in whose place others may stand, its name too.

    >>> from jaxmeta.core.config import AdaptationConfig
    >>> settings_of(AdaptationConfig())
    {'num_envs': 16, 'rollout_length': 0, 'num_adaptations': 3}
    """
    found: dict[str, Any] = {}
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if not isinstance(value, Config):
            found[name] = value
            continue
        if tag_of(value) is not None:
            found[name] = tag_of(value)
        found |= {f"{name}.{path}": leaf for path, leaf in settings_of(value).items()}
    return {path: leaf for path, leaf in found.items() if path not in _unread(config)}


def flattened(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by path of a nested object, as a file holds it.

    >>> flattened({"agent": {"type": "dqn", "hidden": [8]}, "meta_steps": 5})
    {'agent': 'dqn', 'agent.hidden': [8], 'meta_steps': 5}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if not isinstance(value, Mapping):
            flat[name] = value
            continue
        inside = dict(value)
        if TYPE in inside:
            flat[name] = inside.pop(TYPE)
        flat |= {f"{name}.{path}": leaf for path, leaf in flattened(inside).items()}
    return flat


def nested(config: Config) -> dict[str, Any]:
    """A configuration as a file holds it: plain values, lists for tuples."""
    content = json.loads(msgspec.json.encode(config))
    for path in _unread(config):
        *groups, name = path.split(".")
        functools.reduce(operator.getitem, groups, content).pop(name, None)
    return content


def replaced(config: C, settings: Mapping[str, Any], owner: str = "") -> C:
    """A configuration with other settings.

    Args:
      config: as it is.
      settings: by path, or by its last words, values of the fields' types, or `Text`. In place of a record stands one,
        or its name; what the record before it had too stays. Of a record that is None, a setting within it makes one.
      owner: whose settings they are, for the sentence that refuses one.

    Raises:
      UsageError: there is no such setting, or several, or its value is none that it takes, or it lies within a record
        that is to be None.
    """
    pending, records = dict(settings), set()
    for name in settings:  # what records are decides which other settings there are
        path = match(name, _paths_of_records(config))
        if len(path) == 1:
            config = _replaced(config, {path[0]: (name, pending.pop(name))})
            records |= {*path}
    given = {path_of(config, name, owner): (name, value) for name, value in pending.items()}
    for absent in (record for record in records if operator.attrgetter(record)(config) is None):
        for path, (name, value) in given.items():
            require(not path.startswith(f"{absent}."), name, f"be left out where {absent} is none", value)
    return _replaced(config, given)


def with_values(config: C, values: Mapping[str, Any]) -> C:
    """A configuration with other values, by their whole paths."""
    return _replaced(config, {path: (path, value) for path, value in values.items()})


def path_of(config: Config, name: str, owner: str = "") -> str:
    """The path of a setting by its last words.

    Raises:
      UsageError: there is no such setting, or several.
    """
    owner = owner or type(config).__name__
    known = [path for path in paths_of(config) if path not in _unread(config)]
    found = match(name, known)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError("setting", f"be written as {' or '.join(found)}", name)
    short = {shortest(path, known): path for path in known}
    near = synonyms.meant(synonyms.SETTINGS, name, [*short, *known])
    near = near or difflib.get_close_matches(name.rpartition(".")[2], sorted(short), n=MOST_HINTS, cutoff=0.55)
    hint = f"Did you mean {_alternatives(list(dict.fromkeys(near))[:MOST_HINTS])}?" if near else ""
    agent = getattr(config, "agent", None)
    with_agent = f" with agent {tag_of(agent)!r}" if isinstance(agent, Config) else ""
    raise UsageError("setting", f"be one that {owner} reads{with_agent}", name, hint=hint)


def shortest(path: str, known: Mapping[str, Any] | list[str]) -> str:
    """The last words of a path that name it among others.

    >>> shortest("inner.learning_rate", ["inner.learning_rate", "outer.learning_rate"]), shortest("a.b", ["a.b", "c"])
    ('inner.learning_rate', 'b')
    """
    words = path.split(".")
    names = (".".join(words[start:]) for start in range(len(words) - 1, -1, -1))
    return next(name for name in names if len(match(name, known)) == 1)


def traced_settings(config: Config) -> dict[str, str]:
    """By name of a traced hyper-parameter, its path."""
    found = {name: name for name in traced_fields(type(config))}
    for name in config.__struct_fields__:
        if isinstance(value := getattr(config, name), Config):
            found |= {field: f"{name}.{path}" for field, path in traced_settings(value).items()}
    return {name: path for name, path in found.items() if path not in _unread(config)}


READERS: dict[type[inspect.Type], tuple[str, Callable[[str], Any]]] = {
    inspect.BoolType: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    inspect.IntType: ("an integer", int),
    inspect.FloatType: ("a number", float),
    inspect.VarTupleType: ("integers between commas", lambda text: [int(part) for part in text.split(",") if part]),
}
"""How text is read as each type of field, and what it must be."""


def _read(name: str, value: Any, kind: inspect.Type, present: Any) -> Any:
    """A value that was given, as the type of its field, in which another stands at present."""
    if (records := records_of(kind)) and isinstance(value, str):
        if is_optional(kind) and value.lower() in ("none", "null"):
            return None
        require_known(name, value, records)
        shared = [field for field in records[value].__struct_fields__ if hasattr(present, field)]
        return records[value](**{field: getattr(present, field) for field in shared})
    if isinstance(value, Text) and (reader := READERS.get(type(kind))):
        try:
            value = reader[1](value)
        except (KeyError, ValueError):
            raise UsageError(name, f"be {reader[0]}", str(value)) from None
    return checked(name, str(value) if isinstance(value, Text) else value, kind)


def _replaced(config: C, given: Mapping[str, tuple[str, Any]]) -> C:
    """With values by path, each with the name that it was given by; every record is made anew once."""
    changes: dict[str, Any] = {}
    within: dict[str, dict[str, tuple[str, Any]]] = {}
    of_type = kinds(type(config))
    for path, (name, value) in given.items():
        field, _, rest = path.partition(".")
        if rest:
            within.setdefault(field, {})[rest] = (name, value)
        else:
            changes[field] = _read(name, value, of_type[field], getattr(config, field))
    for field, inside in within.items():
        record = changes.get(field, getattr(config, field)) or next(iter(records_of(of_type[field]).values()))()
        changes[field] = _replaced(record, inside)
    return structs.replace(config, **changes) if changes else config


def match(name: str, known: Mapping[str, Any] | list[str]) -> list[str]:
    """The paths that a name stands for: itself, or those that end in its words."""
    return [name] if name in known else [path for path in known if path.endswith(f".{name}")]


def paths_of(config: Config) -> Iterator[str]:
    """The path of every setting, of records that may be None too."""
    for name, kind in kinds(type(config)).items():
        records, value = records_of(kind), getattr(config, name)
        if not records or len(records) > 1 or is_optional(kind):
            yield name
        if records:
            yield from (f"{name}.{path}" for path in paths_of(value or next(iter(records.values()))()))


def _paths_of_records(config: Config) -> list[str]:
    """The paths of fields that hold one of several records, or None."""
    found = []
    for name, kind in kinds(type(config)).items():
        records, value = records_of(kind), getattr(config, name)
        if len(records) > 1 or (records and is_optional(kind)):
            found.append(name)
        if isinstance(value, Config):
            found += [f"{name}.{path}" for path in _paths_of_records(value)]
    return found


def _unread(config: Config) -> frozenset[str]:
    """The paths of settings that an algorithm makes no use of."""
    return config.unread if isinstance(config, AlgorithmConfig) else frozenset()


def _alternatives(names: list[str]) -> str:
    quoted = list(map(repr, names))
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
