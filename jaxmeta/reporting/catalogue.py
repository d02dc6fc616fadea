"""What there is to choose from, by name: settings of an algorithm, options of a task family, a pretrained card."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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
        card = pretrained.card(name)
        print_line(console, card["summary"])
        facts = facts_of_card(name, card)
        width = max(map(len, facts))
        for fact, lines in facts.items():
            for index, line in enumerate(lines):
                print_line(console, f"  {'' if index else fact:{width}}  {line}")


def facts_of_card(name: str, card: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the card of a pretrained learner says, as lines by heading: what is not on the card is left out.

    Args:
      name: of the learner.
      card: as `pretrained.card` reads it.
    """
    figures, config = card.get("figures", {}), card["config"]
    facts = {"score": [], "against baselines": [], "return by round": [], "trained on": [], "run it": [], "made by": []}
    if "score" in figures:
        split = figures.get("split", "test")
        line = f"{figures['score']:.2f} on {figures['num_tasks']} {split} tasks (random 0, oracle 1)"
        if interval := figures.get("ci95_of_all_seeds"):
            line += f"; all seeds {figures['score_of_all_seeds']:.2f}, 95 % interval {_interval(interval)}"
        if interval := figures.get("ci95"):
            line += f"; 95 % interval {_interval(interval)}"
        facts["score"].append(line)
    if interval := figures.get("above_the_baseline_ci95"):
        line = f"difference to {figures['baseline']}, the best tuned one: {_interval(interval)} (95 % interval)"
        facts["against baselines"].append(line)
    if "returns" in figures:
        facts["return by round"].append(", ".join(f"{value:.2f}" for value in figures["returns"]))
    facts["trained on"].append(f"{config['tasks']}, {config['meta_steps']:,} meta-steps, seed {config['seed']}")
    facts["run it"] += [f"jaxmeta evaluate {name}", f"jaxmeta show {name} --out adapt.gif"]
    facts["made by"] += card.get("commands", [])
    facts["with"] = [", ".join(f"{package} {version}" for package, version in card.get("versions", {}).items())]
    facts["digest"] = [card["digest"]]
    return {fact: lines for fact, lines in facts.items() if any(lines)}


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}"


class Setting(NamedTuple):
    """A setting of an algorithm, or an option of a family, as text."""

    name: str
    default: str
    values: str
    """Which values it takes."""
    about: str
    """Its meaning, in a line."""


def settings_of_algorithm(name: str) -> list[Setting]:
    """Every setting of an algorithm, by its shortest name."""
    plain = registry.find(name).config()
    lines, defaults = dict(_settings(plain)), settings_of(plain)
    rows = [path for path in paths_of(plain) if path not in plain.unread]
    return [Setting(shortest(path, rows), spell_value(defaults.get(path)), *lines[path]) for path in rows]


def settings_by_family(name: str) -> dict[str, dict[str, str]]:
    """By task family the settings of an algorithm that differ from its defaults."""
    plain = registry.find(name).config()
    values, rows = settings_of(plain), [path for path in paths_of(plain) if path not in plain.unread]
    names, changed = {path: shortest(path, rows) for path in rows}, {}
    for family in sorted({*plain.families, *plain.policy_families}):
        own = settings_of(registry.configure(name, family))
        differing = {path: value for path, value in own.items() if value != values.get(path, ...) and path != LENGTH}
        changed[family] = {names.get(path, path): spell_value(value) for path, value in differing.items()}
    return {family: settings for family, settings in changed.items() if settings}


def options_of_family(name: str) -> list[Setting]:
    """Every option of a task family."""
    family = tasks.find(name)
    lines = {argument.arg_name: _flat(argument.description) for argument in _documentation(name).params}
    options = {} if not callable(family) else inspect.signature(family).parameters
    return [Setting(option, spell_value(each.default), "", lines.get(option, "")) for option, each in options.items()]


def summary_of_family(name: str) -> str:
    """A task family in a line."""
    return _documentation(name).short_description or name


def _documentation(name: str) -> docstring_parser.Docstring:
    return docstring_parser.parse(inspect.getdoc(tasks.find(name)) or "")


def _show_algorithm(console: Console, name: str) -> None:
    """Its settings, with their defaults and the values of each family."""
    print_line(console, registry.find(name).summary)
    names, defaults, values, lines = zip(*settings_of_algorithm(name), strict=True)
    headings = {"setting": names, "default": defaults, "values": values, "": lines}
    show(console, [Column(heading, list(column), is_text=True) for heading, column in headings.items()])
    for family, changed in settings_by_family(name).items():
        print_line(console, f"On {family}: {' '.join(f'{name}={value}' for name, value in changed.items())}")


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
    print_line(console, summary_of_family(name))
    options = options_of_family(name)
    headings = {
        "option": [option.name for option in options],
        "default": [option.default for option in options],
        "": [option.about for option in options],
    }
    show(console, [Column(heading, column, is_text=True) for heading, column in headings.items()])


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
