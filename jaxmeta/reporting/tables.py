"""Results as tables on a terminal."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from jaxmeta.core.settings import flattened
from jaxmeta.reporting.columns import GAP, Column, show
from jaxmeta.reporting.progress import duration
from jaxmeta.training.seeds import Member, described, members_of

ABSENT = "–"
PREFIXES = {-2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E"}
"""By power of a thousand."""


def show_evaluation(console: Console, evaluation: dict[str, Any]) -> None:
    """Prints a learner's returns by round beside its baselines'."""
    seen = ", which training has seen" if evaluation["tasks_seen"] else ""
    each = {f"  {Member(report['seed'], report['hyperparams'])}": report for report in evaluation.get("members", ())}
    rows = {evaluation["algorithm"]: evaluation, **each, **evaluation["baselines"]}
    columns = [Column("", list(rows), is_text=True), *_scores(rows.values())]
    columns += _rounds([report["returns"] for report in rows.values()])
    print_line(console, f"{evaluation['num_tasks']} {evaluation['split']} tasks of {evaluation['tasks']}{seen}", "bold")
    left_out = show(console, columns)
    print_line(console, "Score: 0 is random, 1 the oracle. Rounds: mean return of an episode after each.", "dim")
    if left_out:
        print_line(
            console, f"Left out for want of width: {len(left_out)} of {len(evaluation['returns'])} rounds.", "dim"
        )


def show_comparison(console: Console, rows: list[dict[str, Any]], missing: list[str]) -> None:
    """Prints rows of `jaxmeta.compare`, a table for each task family and split, and what is missing."""
    left_out: dict[str, None] = {}
    for _, family in itertools.groupby(rows, key=lambda row: row["family"]):
        group = list(family)
        print_line(console, f"{group[0]['split']} tasks of {group[0]['tasks']}", "bold")
        left_out |= dict.fromkeys(show(console, _comparison(group)))
    print_line(
        console,
        "Verdict: beside the best baseline of the family, by the 95 % interval of the difference; P: to beat it.",
        "dim",
    )
    print_line(console, "Before and after: mean return of an episode before and after adaptation.", "dim")
    if left_out:
        print_line(console, f"Left out for want of width: {', '.join(left_out)}.", "dim")
    for sentence in missing:
        print_line(console, sentence, "yellow")


def show_inspection(console: Console, content: dict[str, Any]) -> None:
    """Prints what `inspection.inspect_run` has found: what a run is, how far it got, and what it costs."""
    config, point = content["config"], content["last_log_point"]
    checkpoints = {
        f"meta-step {found['step']}": ", ".join([scaled(found["bytes"], "B"), _verdict(found)])
        for found in content["checkpoints"]
    }
    if content["checkpoints_damaged"]:
        checkpoints["set aside as damaged"] = ", ".join(content["checkpoints_damaged"])
    _show_configuration(console, content["run_dir"], content)
    _show_facts(
        console,
        "Progress",
        {
            "newest checkpoint that verifies": f"meta-step {content['meta_step']} of {config['meta_steps']}",
            "state_digest": content["state_digest"],
            "last log point": _log_point(point) if point else ABSENT,
        },
    )
    _show_facts(console, "Checkpoints", checkpoints)
    _show_costs(console, content)


def show_plan(console: Console, content: dict[str, Any]) -> None:
    """Prints what `inspection.plan` has found: what a run would need."""
    _show_configuration(console, "A plan", content)
    _show_costs(console, content)
    _show_facts(
        console,
        f"The whole run, {content['config']['meta_steps']:,} meta-steps",
        {
            "environment steps": f"{content['env_steps']:,}",
            "matrix products": scaled(content["flops"], "FLOP"),
            "checkpoint": scaled(content["checkpoint_bytes"], "B"),
            "compiling": _time(content["compile_seconds"]),
            "a meta-step": _time(content["seconds_per_meta_step"]),
            "training": f"about {_time(content['estimated_seconds'])}",
            "evaluation": f"about {_time(content['evaluation_seconds'])}, of which tuned baselines "
            f"{_time(content['baseline_seconds'])}",
        },
    )
    measured = f"Times: measured on this machine just now, a meta-step as the median of {content['timed_meta_steps']}"
    print_line(console, f"{measured}; of an evaluation, its first.", "dim")
    print_line(console, "Checkpoint: the bytes of the state; on disk some tens of kB more describe it.", "dim")


def _show_configuration(console: Console, title: str, content: dict[str, Any]) -> None:
    """Prints what a run is composed of, and what it ran on."""
    config = {"python": ABSENT, "versions": {}, **content["config"]}
    agent = flattened(config["settings"]).get("agent")
    known = {**config, **({} if agent is None else {"agent": agent})}
    facts = {name: str(known[name]) for name in ("algorithm", "agent", "tasks", "seed", "meta_steps") if name in known}
    if "seeds" in config:
        facts["members"] = f"{len(members_of(config))}: {described(config)}"
    if device := config.get("device"):
        facts["device"] = f"{device['count']} x {device['kind']} ({device['platform']})"
    versions = {"python": config["python"], **config["versions"]}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    _show_facts(console, title, facts)
    _show_facts(console, "Settings that were changed", content["changed_settings"])


def _show_costs(console: Console, content: dict[str, Any]) -> None:
    """Prints how large a learner is, and what a meta-step of it takes."""
    parts = {**content["parameters_by_part"], "total": content["parameters"]}
    memory = {name: ABSENT if size is None else scaled(size, "B") for name, size in content["memory"].items()}
    layout = content["devices"]
    _show_facts(console, "Parameters", {name: f"{count:,}" for name, count in parts.items()})
    _show_facts(
        console,
        "A meta-step, compiled on this machine",
        {
            "environment steps": f"{content['env_steps_per_meta_step']:,}",
            "matrix products": scaled(content["flops_per_meta_step"], "FLOP"),
            "state": memory["state_bytes"],
            "temporary memory": memory["temporary_bytes"],
            "arguments": memory["argument_bytes"],
            "outputs": memory["output_bytes"],
            "devices": f"{layout['used']} used of {layout['visible']} x {layout['kind']} ({layout['platform']})",
            "members": f"{content['members']}, whose operations and memory these are"
            if content["members"] > 1
            else "1",
            "tasks in a batch": f"{layout['tasks_per_batch']}, {layout['tasks_per_device']} on a device",
        },
    )


def _show_facts(console: Console, title: str, facts: Mapping[str, Any]) -> None:
    """Prints named facts under a title; where there are none, nothing."""
    if facts:
        print_line(console, title, "bold")
    width = max(map(len, facts), default=0)
    for name, fact in facts.items():
        print_line(console, f"  {name:{width}}  {fact}")


def _verdict(checkpoint: dict[str, Any]) -> str:
    return "intact" if checkpoint["intact"] else f"damaged: {checkpoint['problem']}"


def _log_point(record: dict[str, Any]) -> str:
    reported = [f"{name} {record[name]:.4g}" for name in ("loss", "return") if name in record]
    reached = f"meta-step {record['meta_step']}, {record['env_steps']:,} environment steps"
    return ", ".join([f"{reached} in {_time(record['seconds'])}", *reported])


def _rounds(returns: Sequence[Sequence[float]]) -> list[Column]:
    """A column for each round; the middle ones leave first, and the first and the last one stay longest.

    Args:
      returns: of each row, by round. A row may have fewer rounds than the first one.
    """
    last = len(returns[0]) - 1
    columns = []
    for index in range(last + 1):
        cells = [number(row[index]) if index < len(row) else "" for row in returns]
        leaves = {last: 2.0, 0: 1.0}.get(index, -1.0 - min(index, last - index))
        columns.append(Column(f"round {index}", cells, f"r{index}", leaves=leaves))
    middle = (last + 1) // 2
    return [*columns[:middle], Column(GAP, [""] * len(returns), is_gap=True), *columns[middle:]]


def _comparison(group: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Columns of one family's rows."""
    steps = [row["training"].get("env_steps") for row in group]
    return [
        Column("", [row["name"] for row in group], is_text=True),
        Column(
            "agent",
            ["" if row["kind"] == "reference" else row["agent"] or ABSENT for row in group],
            is_text=True,
            leaves=4,
        ),
        Column("seeds", [str(row["seeds"]) for row in group], leaves=3),
        Column("training steps", [ABSENT if count is None else f"{count:,}" for count in steps], "steps", leaves=1),
        *_scores(group),
        Column("verdict", [row["verdict"] or "" for row in group], is_text=True, leaves=6),
        Column(
            "P(beats it)",
            ["" if row["probability"] is None else number(row["probability"]) for row in group],
            "P",
            leaves=2,
        ),
        Column("before", [number(row["returns"][0]) for row in group], leaves=0),
        Column("after", [number(row["returns"][-1]) for row in group], leaves=5),
    ]


def print_line(console: Console, line: str, style: str = "") -> None:
    """Prints a line as it is, of whatever length."""
    console.print(line, style=style, soft_wrap=True, markup=False, highlight=False)


def _scores(reports: Iterable[Mapping[str, Any]]) -> list[Column]:
    """The columns of score and interval, which are never left out."""
    scores = [(report["score"], report["ci95"]) for report in reports]
    intervals = [ABSENT if interval is None else " to ".join(map(number, interval)) for _, interval in scores]
    return [Column("score", [number(score) for score, _ in scores]), Column("95 %", intervals)]


def number(value: float | None) -> str:
    """A score or a return, in two digits behind the point."""
    return ABSENT if value is None else f"{round(value, 2) + 0.0:.2f}"  # adding zero makes -0.0 a plain zero


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else scaled(seconds, "s")


def scaled(value: float, unit: str) -> str:
    """A quantity in three digits, with the prefix that suits it.

    >>> scaled(0.0421, "s"), scaled(0, "B"), scaled(999.6, "B"), scaled(66_269_384, "B"), scaled(3.7e9, "FLOP")
    ('42.1 ms', '0 B', '1 kB', '66.3 MB', '3.7 GFLOP')
    """
    if value == 0:
        return f"0 {unit}"
    digits = float(f"{value:.3g}")
    power = min(max(math.floor(math.log10(digits) / 3), -2), 6)
    return f"{digits / 1000.0**power:.3g} {PREFIXES[power]}{unit}"
