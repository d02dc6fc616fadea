"""What there is to choose from, by name: a recipe's settings, a task family's options, a pretrained learner's card."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

import docstring_parser
from rich.console import Console

from jaxmeta.algorithms import presets, recipes
from jaxmeta.algorithms.settings import FIELD_GROUP, GROUPS, Settings
from jaxmeta.core import tasks
from jaxmeta.core.config import kinds, spelled
from jaxmeta.core.errors import require_known
from jaxmeta.core.tasks import spell_value
from jaxmeta.core.types import Hypers
from jaxmeta.reporting.columns import Column, show
from jaxmeta.reporting.tables import print_line
from jaxmeta.training import pretrained


def names() -> dict[str, dict[str, str]]:
    """All names with a line each, by what they are names of."""
    return {
        "Recipes": recipes.available(),
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
    kinds = names()
    require_known("NAME", name, [known for lines in kinds.values() for known in lines], see="`jaxmeta list`")
    if name in kinds["Recipes"]:
        _show_recipe(console, name)
    elif name in kinds["Task distributions"]:
        _show_tasks(console, name)
    else:
        card = {key: value for key, value in pretrained.card(name).items() if key != "config"}
        print_line(console, json.dumps(card, indent=2, ensure_ascii=False))


def _show_recipe(console: Console, name: str) -> None:
    """Its settings, with what they are where nobody sets them, and what a family changes."""
    recipe = recipes.find(name)
    plain = Settings.from_flat(recipe.everywhere).flat()
    read = recipes.settings_read(name, plain)
    print_line(console, recipe.summary)
    lines = documented(Hypers) | {field: line for kind in GROUPS.values() for field, line in documented(kind).items()}
    values = {field: value for kind in GROUPS.values() for field, value in kinds(kind).items()}
    rows = [field for field in FIELD_GROUP if field in read]
    show(
        console,
        [
            Column("setting", rows, is_text=True),
            Column("default", [spell_value(plain[field]) for field in rows], is_text=True),
            Column("values", [spelled(values[field]) for field in rows], is_text=True),
            Column("", [lines.get(field, "") for field in rows], is_text=True),
        ],
    )
    for family in sorted({*presets.FAMILY_SETTINGS, *presets.POLICY_SETTINGS, *recipe.settings}):
        changed = _changed(name, family, plain)
        if changed:
            pairs = " ".join(f"{field}={spell_value(value)}" for field, value in changed.items())
            print_line(console, f"On {family}: {pairs}")


def _changed(name: str, family: str, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a recipe reads and a family changes; the length of a round is the family's episode anyway."""
    own = recipes.resolve_settings(name, family)
    read = recipes.settings_read(name, own)
    return {field: own[field] for field in own if field in read and field != "steps" and own[field] != plain[field]}


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

    >>> from jaxmeta.core.config import LifetimeConfig
    >>> documented(LifetimeConfig)["envs"]
    'Environments of the same task, side by side.'
    """
    found = docstring_parser.parse_from_object(kind)
    return {field.arg_name: _flat(field.description) for field in found.params}


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())
