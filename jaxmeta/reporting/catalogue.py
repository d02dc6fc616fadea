"""What there is to choose from, by name: settings of an algorithm, options of a task family, a pretrained card."""

import inspect
import json
from collections.abc import Iterator

import docstring_parser
from rich.console import Console

from jaxmeta.algorithms import registry
from jaxmeta.core import tasks
from jaxmeta.core.config import Config, kinds, records_of, spelled
from jaxmeta.core.errors import require_known
from jaxmeta.core.settings import paths_of, settings_of, shortest
from jaxmeta.core.tasks import spell_value
from jaxmeta.reporting.columns import Column, show
from jaxmeta.reporting.tables import print_line
from jaxmeta.training import pretrained


def names() -> dict[str, dict[str, str]]:
    """All names with a line each, by what they are names of."""
    return {
        "Algorithms": registry.available(),
        "Task distributions": tasks.available(),
        "Pretrained learners": pretrained.available(),
    }


def show_names(console: Console) -> None:
    """Prints all names."""
    for heading, lines in names().items():
        print_line(console, heading)
        width = max(map(len, lines), default=0)
        for name, line in lines.items():
            print_line(console, f"  {name:{width}}  {line}")


def show_entry(console: Console, name: str) -> None:
    """Prints what there is to know of one name.

    Raises:
      UsageError: nothing has that name.
    """
    known = names()
    require_known("NAME", name, [each for lines in known.values() for each in lines], see="`jaxmeta list`")
    if name in known["Algorithms"]:
        _show_algorithm(console, name)
    elif name in known["Task distributions"]:
        _show_tasks(console, name)
    else:
        card = {key: value for key, value in pretrained.card(name).items() if key != "config"}
        print_line(console, json.dumps(card, indent=2, ensure_ascii=False))


def _show_algorithm(console: Console, name: str) -> None:
    """Its settings, with their defaults and the values of each family."""
    algorithm = registry.find(name)
    plain, lines = algorithm.config(), dict(_settings(algorithm.config()))
    print_line(console, algorithm.summary)
    values, rows = settings_of(plain), [path for path in paths_of(plain) if path not in plain.unread]
    names = {path: shortest(path, rows) for path in rows}
    show(
        console,
        [
            Column("setting", list(names.values()), is_text=True),
            Column("default", [spell_value(values.get(path)) for path in rows], is_text=True),
            Column("values", [lines[path][0] for path in rows], is_text=True),
            Column("", [lines[path][1] for path in rows], is_text=True),
        ],
    )
    for family in sorted({*plain.families, *plain.policy_families}):
        own = settings_of(registry.configure(name, family))
        changed = {path: value for path, value in own.items() if value != values.get(path, ...) and path != LENGTH}
        if changed:
            pairs = " ".join(f"{names.get(path, path)}={spell_value(value)}" for path, value in changed.items())
            print_line(console, f"On {family}: {pairs}")


LENGTH = "adaptation.rollout_length"
"""Which is a family's episode anyway."""


def _settings(config: Config) -> Iterator[tuple[str, tuple[str, str]]]:
    """By path, what values a setting takes, and what it is in a line."""
    lines = documented(type(config))
    for name, kind in kinds(type(config)).items():
        yield name, (spelled(kind), lines.get(name, ""))
        record = getattr(config, name) or next((record() for record in records_of(kind).values()), None)
        if isinstance(record, Config):
            yield from ((f"{name}.{path}", about) for path, about in _settings(record))


def _show_tasks(console: Console, name: str) -> None:
    """The options of a family."""
    family = tasks.find(name)
    text = docstring_parser.parse(inspect.getdoc(family) or "")
    print_line(console, text.short_description or name)
    lines = {argument.arg_name: _flat(argument.description) for argument in text.params}
    options = {} if not callable(family) else inspect.signature(family).parameters
    show(
        console,
        [
            Column("option", list(options), is_text=True),
            Column("default", [spell_value(option.default) for option in options.values()], is_text=True),
            Column("", [lines.get(option, "") for option in options], is_text=True),
        ],
    )


def documented(kind: type) -> dict[str, str]:
    """What each field of a configuration is, in a line, as the docstring below it says.

    >>> from jaxmeta.core.config import AdaptationConfig
    >>> documented(AdaptationConfig)["num_envs"]
    'Environments of the same task, side by side.'
    """
    lines: dict[str, str] = {}
    for each in reversed(kind.__mro__[: kind.__mro__.index(Config)]):
        found = docstring_parser.parse_from_object(each)
        lines |= {field.arg_name: _flat(field.description) for field in found.params}
    return lines


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())
