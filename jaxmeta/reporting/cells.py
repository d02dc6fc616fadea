"""Cells: what one method did on one family of tasks, in a file that is sealed, with the commands that made it.

A scoreboard is a folder of them, and a run that was evaluated is a few. What a cell holds is measured; whatever is
computed from several is in `comparison`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxmeta.core import fields
from jaxmeta.core.errors import UsageError, Words, require, require_known
from jaxmeta.core.settings import flattened
from jaxmeta.reporting import command_lines
from jaxmeta.training.run_directory import SWEPT, RunDirectory, write_text
from jaxmeta.training.seeds import last_word

FORMAT = 1
KINDS = ("method", "baseline", "reference")
"""A method is meta-trained; a baseline learns each task as ordinary learners do; a reference is chance, the oracle, or
a policy that was written for the family."""
BASELINES = ("scratch", "finetune")
ENDS = ("random", "oracle")
"""The references that every family has: the ends of the scale."""
DIGITS = 5
"""Significant digits of what is measured: more would say nothing, and take room."""

_rows = fields.listed(fields.numbers, "lists of numbers")


def _this_format(name: str, value: Any) -> None:
    require(value == FORMAT, name, f"be {FORMAT}, that of this version of jaxmeta", value)


def _kind(name: str, value: Any) -> None:
    require_known(name, value, KINDS)


POINT = fields.record(
    {
        "split": fields.text,
        "tasks_seen": fields.nullable(fields.flag),
        "env_steps": fields.whole(0),
        "seed": fields.whole(0),
        "returns": _rows,
        "scores": fields.nullable(_rows),
        "steps_to_threshold": fields.listed(fields.nullable(fields.number), "numbers"),
    }
)
"""One evaluation, after `env_steps` of meta-training, in tasks of a split drawn by `seed`: `returns` are mean returns
of an episode, [seeds][rounds + 1], and `scores` are of each task after the last round, [seeds][tasks]."""
CELL = fields.record(
    {
        "format": _this_format,
        "kind": _kind,
        **dict.fromkeys(("tasks", "method", "agent", "device", "digest"), fields.text),
        "hyperparams": SWEPT,
        "commands": fields.listed(fields.text, "commands"),
        "versions": fields.record({"jaxmeta": fields.text}, others=fields.text),
        "settings": fields.record({}),
        "sees_context": fields.flag,
        "seeds": fields.listed(fields.whole(0), "integers"),
        "adaptation": fields.record(
            {"env_steps": fields.whole(0), "rounds": fields.whole(0)}, others=fields.nullable(fields.number)
        ),
        "training": fields.record({}, others=fields.nullable(fields.number)),
        "points": fields.listed(POINT, "points"),
    }
)
"""What a file holds."""
MEASURED = ("returns", "scores", "steps_to_threshold")
"""What a point lists for each seed."""
MOST_POINTS = 200
"""Of a training curve."""
LIFETIME = "adaptation."
"""Prefixes of a learner's settings that its baselines share."""


def label(cell: Mapping[str, Any]) -> str:
    """The method, and what was swept.

    >>> label({"method": "maml", "hyperparams": {"inner.learning_rate": 0.1}})
    'maml learning_rate=0.1'
    """
    return " ".join([cell["method"], *(f"{last_word(name)}={value:g}" for name, value in cell["hyperparams"].items())])


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A cell with numbers of `DIGITS` digits, its format and its digest."""
    rounded = _rounded({"format": FORMAT, **content})
    return rounded | {"digest": _digest(rounded)}


def write(path: Path, cell: Mapping[str, Any]) -> None:
    """Writes a sealed cell, all of it or nothing, a line for each field."""
    lines = [f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in cell.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read(path: Path) -> dict[str, Any]:
    """Reads a cell.

    Raises:
      UsageError: it cannot be read, is no cell, or is not as it was written.
    """
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        raise UsageError(repr(str(path)), "be a cell of a scoreboard", Words("what cannot be read as one")) from None
    _require_sound(repr(str(path)), cell)
    content = {name: value for name, value in cell.items() if name != "digest"}
    if _digest(content) != cell["digest"]:
        raise UsageError(repr(str(path)), "be as it was written", Words("one that was changed since"))
    return cell


def load(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The cells of a scoreboard, or of a run that was evaluated, and what is missing.

    Returns:
      Cells, and a sentence for each file that holds none that can be trusted, for each cell that does not apply and
      each that was started and is missing, for results of another version of this library, and for all cells of a
      method or baseline that are there in some families and not in others.

    Raises:
      UsageError: the folder holds neither cells nor an evaluated run.
    """
    run = RunDirectory(folder)
    if run.config.is_file():
        found = of_run(run)
        return found, _of_other_versions(folder, found)
    found, missing = {}, []
    for path in sorted(folder.glob("*.cell.json")):
        try:
            found[_name(path)] = read(path)
        except UsageError as error:
            missing.append(str(error))
    reasons = sorted(folder.glob("*.reason.json"))
    missing += [f"{_name(path)} does not apply: {_reason(path)}" for path in reasons]
    started = sorted(path.name for path in (folder / "runs").glob("*") if path.is_dir())
    there = set(map(_name, folder.glob("*.json")))
    missing += [f"{name} was started and is not finished." for name in started if name not in there]
    rule = "hold an evaluated run, or cells of a scoreboard"
    require(bool(found or missing), "A folder to compare", rule, str(folder))
    everywhere = {name for name, cell in found.items() if cell["kind"] != "reference" or cell["method"] in ENDS}
    if absent := sorted(_crossed(everywhere, there) - there - set(started)):
        missing.append(f"Not made: {', '.join(absent)}.")
    return list(found.values()), missing + _of_other_versions(folder, found.values())


def _name(path: Path) -> str:
    """`family-method`, of the file of a cell or of a reason."""
    return path.name.partition(".")[0]


def _crossed(cells: Iterable[str], there: Iterable[str]) -> set[str]:
    """The names that the methods of some cells have in all families that are there.

    >>> sorted(_crossed(["maze-maml"], ["maze-maml", "bandit-gittins"]))
    ['bandit-maml', 'maze-maml']
    """
    families = {name.partition("-")[0] for name in there}
    return {f"{family}-{name.partition('-')[2]}" for family in families for name in cells}


def _of_other_versions(folder: Path, found: Iterable[Mapping[str, Any]]) -> list[str]:
    current, by_version = metadata.version("jaxmeta"), {}
    for cell in found:
        by_version.setdefault(cell["versions"]["jaxmeta"], []).append(f"{cell['method']} on {cell['tasks']}")

    def whose(names: list[str]) -> str:
        return f"all cells of {str(folder)!r}" if len(by_version) == 1 else ", ".join(names)

    return [
        f"Made by jaxmeta {version}, and this is {current}: {whose(names)}."
        for version, names in by_version.items()
        if version != current
    ]


def of_run(run: RunDirectory) -> list[dict[str, Any]]:
    """The cells of a run that was evaluated: its own, one for each value that was swept, and what it stood beside."""
    config, reported = run.load_config(), run.load_evaluation()
    commands = [command_lines.of_training(config, run.path), command_lines.of_evaluation(reported, run.path)]
    made = of_evaluations([reported], origin(config, filter(None, commands)), run.read_metrics())
    for cell in made:
        _require_sound(repr(str(run.evaluation)), cell)
    return made


def origin(config: Mapping[str, Any], commands: Iterable[str]) -> dict[str, Any]:
    """What made a cell: commands, versions, device."""
    device = config.get("device", {"kind": "unknown", "count": 1})
    versions = {"jaxmeta": "unknown", **config.get("versions", {}), "python": config.get("python", "unknown")}
    return {"commands": list(commands), "versions": versions, "device": f"{device['count']} x {device['kind']}"}


def of_evaluations(
    evaluations: Sequence[Mapping[str, Any]],
    made: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    **training: float | None,
) -> list[dict[str, Any]]:
    """The cells that evaluations of one learner make: its own, then those of its baselines and references.

    Args:
      evaluations: what `evaluate` returned; costs, and how baselines were tuned, are those that the first with any
        tells.
      made: see `origin`.
      metrics: the log points of its training.
      **training: what else is known about that.
    """
    ordered = sorted(evaluations, key=lambda reported: reported["meta_env_steps"])
    last = next((reported for reported in evaluations if "seconds" in reported), ordered[-1])
    shared = {**made, "tasks": last["tasks"], "agent": last["agent"], "settings": last["settings"], "hyperparams": {}}
    settings = flattened(last["settings"])
    adaptation = {"env_steps": last["env_steps"], "rounds": len(last["returns"]) - 1}
    logged = metrics[-1] if metrics else {}
    own = {
        **shared,
        "kind": "method",
        "method": last["algorithm"],
        "sees_context": last.get("sees_context", False),
        "adaptation": adaptation | {name: last.get(name) for name in ("seconds", "flops", "memory")},
        "training": {
            "env_steps": last["meta_env_steps"],
            "meta_step": logged.get("meta_step"),
            **training,
        },
    }
    members = last.get("members") or [{"seed": last["train_seed"], "hyperparams": {}}]
    cells = []
    for hyperparams in {
        json.dumps(member["hyperparams"], sort_keys=True): member["hyperparams"] for member in members
    }.values():
        chosen = [index for index, member in enumerate(members) if member["hyperparams"] == hyperparams]
        seeds = [members[index]["seed"] for index in chosen]
        points = [_point(reported, reported, chosen) for reported in ordered]
        seconds = {"seconds": logged["seconds"] * len(chosen) / len(members) if "seconds" in logged else None}
        more = {"hyperparams": hyperparams, "seeds": seeds, "points": points, "training": own["training"] | seconds}
        curves = {str(seed): _curve(metrics, index) for seed, index in zip(seeds, chosen, strict=True)}
        cells.append(sealed({**own, **more, **({"curves": curves} if metrics else {})}))
    for name in last["baselines"]:
        reports = [(reported, reported["baselines"][name]) for reported in ordered if name in reported["baselines"]]
        number = len(reports[0][1].get("members", [None]))
        beside = {
            "kind": "baseline" if name.partition(" ")[0] in BASELINES else "reference",
            "method": name,
            "sees_context": name == "oracle",
            "seeds": [last["seed"] + index for index in range(number)],
            "settings": {path: value for path, value in settings.items() if path.startswith(LIFETIME)}
            | last["baselines"][name].get("tuned", {}),
            "adaptation": adaptation,
            "training": {"env_steps": last["meta_env_steps"]} if name.startswith("finetune") else {},
            "points": [_point(reported, report, range(number)) for reported, report in reports],
        }
        cells.append(sealed({**shared, **beside}))
    return cells


def _curve(metrics: Sequence[Mapping[str, Any]], member: int) -> list[list[float]]:
    """Environment steps and returns of a member while it was trained, at most `MOST_POINTS` each."""
    kept = metrics[:: max(1, -(-len(metrics) // MOST_POINTS))]
    by_member = [record.get("return_by_member") for record in kept]
    returns = [each[member] if each else record["return"] for each, record in zip(by_member, kept, strict=True)]
    return [[record["env_steps"] for record in kept], returns]


def _point(reported: Mapping[str, Any], report: Mapping[str, Any], chosen: Iterable[int]) -> dict[str, Any]:
    """What some members did in one evaluation."""
    every = report.get("members") or [report]
    members = [every[index] for index in chosen]
    scores = [member["task_scores"] for member in members]
    return {
        "split": reported["split"],
        "tasks_seen": reported.get("tasks_seen"),
        "env_steps": reported["meta_env_steps"],
        "seed": reported["seed"],
        "returns": [member["returns"] for member in members],
        "scores": None if None in scores else scores,
        "steps_to_threshold": [member.get("steps_to_threshold") for member in members],
    }


def _require_sound(name: str, cell: Any) -> None:
    """Raises UsageError for what is no cell, or one whose seeds, rounds or tasks are not the same everywhere."""
    CELL(name, cell)
    for point in cell["points"]:
        tasks = {len(row) for row in point["scores"] or ()}
        rounds = {len(row) for row in point["returns"]}
        seeds = {len(point[measured]) for measured in MEASURED if point[measured] is not None}
        alike = seeds == {len(cell["seeds"])} and rounds == {cell["adaptation"]["rounds"] + 1} and len(tasks) < 2
        require(alike, f"{name} points", "have as many entries as there are seeds, rounds and tasks", "others")


def _reason(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["reason"])
    except (ValueError, OSError, KeyError, TypeError):
        return "its reason cannot be read."


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
