"""Finds task distributions by their specification: `NAME` or `package.module:name`, and `:key=value,key=value`."""

import functools
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from jaxmeta.core import contracts, registry
from jaxmeta.core.errors import UsageError, Words, as_kind, require, require_known
from jaxmeta.core.types import TaskDistribution

ENTRY_POINTS = "jaxmeta.tasks"
READERS: dict[type, tuple[str, Callable[[str], Any]]] = {
    bool: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    int: ("an integer", int),
    float: ("a number", float),
    str: ("a string", str),
    tuple: ("integers between commas", lambda text: [int(part) for part in text.split(",") if part]),
}
"""How text is read as each type, and what it must be."""


def available() -> dict[str, str]:
    """Names of the installed task distributions, each with the first line of its documentation."""
    return {name: _summary(load()) for name, load in _known().items()}


def find(name: str) -> Any:
    """The function that makes a family's distribution, or the distribution itself, by `NAME` or `package.module:name`.

    Raises:
      UsageError: there is none of that name.
    """
    if is_imported(name):
        return registry.import_object("--tasks", name, TaskDistribution)
    known = _known()
    require_known("--tasks", name, known)
    return known[name]()


def _known() -> dict[str, Callable[[], Any]]:
    """By name, what imports each family: those of `jaxmeta_envs`, and other packages' by their entry points."""
    from jaxmeta_envs.families import FAMILIES

    others = {name: point.load for name, point in registry.entry_points(ENTRY_POINTS).items()}
    return others | {name: functools.partial(pkgutil.resolve_name, path) for name, path in FAMILIES.items()}


def _summary(found: Any) -> str:
    return "" if isinstance(found, TaskDistribution) else (inspect.getdoc(found) or "").split("\n")[0]


def as_distribution(tasks: str | TaskDistribution) -> TaskDistribution:
    """A task distribution, or the one that a specification names.

    Raises:
      UsageError: it is neither, or there is none of that name; see `make_tasks`.
    """
    if isinstance(tasks, str):
        return make_tasks(tasks)
    rule = "be a task distribution, or the name of one, such as 'grid_navi'"
    require(isinstance(tasks, TaskDistribution), "tasks", rule, tasks)
    return tasks


def make_tasks(spec: str, **options: Any) -> TaskDistribution:
    """Builds the task distribution that a specification names.

    Args:
      spec: `NAME` or `NAME:key=value,...`. NAME is a family of ours, an entry point of the group `jaxmeta.tasks`, or
        `package.module:name`: a function of keyword arguments that returns a `TaskDistribution`, or such a distribution
        itself, which has no options. A value is read as the type of the argument's default.
      **options: more of them, as values of that type. The distribution's name is the specification with them in it, in
        the order of the function's arguments.

    Raises:
      UsageError: an unknown name or option, a value that cannot be read or is out of range, or a function that returns
        something else.

    >>> make_tasks("grid_navi:size=4").horizon, make_tasks("grid_navi", size=4, horizon=8).name
    (15, 'grid_navi:size=4,horizon=8')
    """
    require(isinstance(spec, str), "tasks", "be a name, such as 'grid_navi' or 'grid_navi:size=4'", spec)
    name, text = _parts(spec)
    found = find(name)
    if isinstance(found, TaskDistribution):
        given = [*filter(None, text.split(",")), *options]
        require(not given, f"--tasks {name} options", "be none, for it is a distribution and no function", given)
        return contracts.require_tasks(name, found)._replace(name=spec)
    read = _read_options(name, text, found, options)
    made = found(**read)
    if is_imported(spec):
        contracts.require_tasks(name, made)
    return made._replace(name=spec if not options else _spelled(name, read))


def _spelled(name: str, options: Mapping[str, Any]) -> str:
    """The specification that names these options.

    >>> _spelled("grid_navi", {"size": 4, "goals": "all"})
    'grid_navi:size=4,goals=all'
    """
    texts = {key: spell_value(value) for key, value in options.items()}
    for key, text in texts.items():
        require(
            "," not in text, f"{name}:{key}", "have no comma, which ends an option of a specification", options[key]
        )
    return f"{name}:{','.join(f'{key}={text}' for key, text in texts.items())}"


def is_imported(spec: str) -> bool:
    """Whether a specification names something which `make_tasks` imports by its path.

    >>> is_imported("grid_navi:size=4"), is_imported("my.module:tasks:size=4")
    (False, True)
    """
    return ":" in _parts(spec)[0]


def _parts(spec: str) -> tuple[str, str]:
    """Name and options.

    >>> _parts("grid_navi:size=4"), _parts("my.module:tasks"), _parts("my.module:tasks:size=4")
    (('grid_navi', 'size=4'), ('my.module:tasks', ''), ('my.module:tasks', 'size=4'))
    """
    name, _, rest = spec.partition(":")
    function, _, options = rest.partition(":")
    is_path = function.isidentifier() and name not in _known()
    return (f"{name}:{function}", options) if is_path else (name, rest)


def _read_options(name: str, options: str, factory: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a specification, and more that are values already, in the order of the function's arguments."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        raise UsageError(name, "be a function with a signature", factory) from None
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty:
            raise UsageError(name, "have a default for each of its arguments", Words(f"none for {key!r}"))
    read = {}
    for option in filter(None, options.split(",")):
        key, equals, text = option.partition("=")
        if not equals:
            raise UsageError(f"--tasks {name} options", "be written key=value", option)
        require_known(f"--tasks {name} option", key, parameters)
        require(key not in read, f"--tasks {name} options", "name each option once", key)
        read[key] = read_value(f"{name}:{key}", text, type(parameters[key].default))
    for key, value in more.items():
        require_known(f"--tasks {name} option", key, parameters)
        require(key not in read, f"--tasks {name} options", "name each option once", key)
        read[key] = as_kind(f"{name}:{key}", value, _readable(f"{name}:{key}", type(parameters[key].default)))
    return {key: read[key] for key in parameters if key in read}


def read_value(name: str, text: str, kind: type) -> Any:
    """Reads a value of a known type from the text of the command line.

    Raises:
      UsageError: the text is not of that type, or the type is none that text is read as.

    >>> read_value("rounds", "3", int), read_value("double", "false", bool), read_value("hidden", "64,64", tuple)
    (3, False, (64, 64))
    """
    wanted, read = READERS[_readable(name, kind)]
    try:
        value = read(text)
    except (KeyError, ValueError):
        raise UsageError(name, f"be {wanted}", text) from None
    return as_kind(name, value, kind)


def spell_value(value: Any) -> str:
    """A value as `read_value` reads it.

    >>> spell_value([64, 64]), spell_value(True), spell_value(0.1)
    ('64,64', 'true', '0.1')
    """
    if isinstance(value, list | tuple):
        return ",".join(map(spell_value, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _readable(name: str, kind: type) -> type:
    require(kind in READERS, name, "have a default that is a bool, int, float, str or tuple of integers", kind.__name__)
    return kind
