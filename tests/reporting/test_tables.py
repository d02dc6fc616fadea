"""Tables on terminals of every width: no number is cut, and what is left out is told."""

import io
import re

import pytest
from rich.console import Console

from jaxmeta.reporting import tables
from jaxmeta.reporting.columns import Column, show

WIDTHS = (60, 61, 80, 110, 200)
NAMES = (
    "learned_optimizer",
    "hypernetwork kind=method num_envs=2 rollout_length=1",
    "scratch",
    "a name of many short words " * 4,
    "x" * 70,
)
LONG = 1000


def rendered(width, print_to):
    out = io.StringIO()
    print_to(Console(file=out, width=width, markup=False, emoji=False))
    return out.getvalue().splitlines()


def report(index, rounds):
    return {
        "returns": [-LONG * index - 0.5 * step for step in range(rounds)],
        "score": -1.25 * index,
        "ci95": [-1.5 * index - 10, 10.75 + index],
    }


def evaluation_of(names, rounds):
    reports = {name: report(index, rounds) for index, name in enumerate(names)}
    first, *others = reports
    return {
        **reports[first],
        **{"algorithm": first, "tasks": "maze", "split": "test", "num_tasks": 128, "tasks_seen": False},
        "members": [{**report(7, rounds), "seed": 3, "hyperparams": {"inner.learning_rate": 0.1}}],
        "baselines": {name: reports[name] for name in others} | {"unscored": {**report(0, rounds), "ci95": None}},
    }


def rows_of(names, rounds):
    return [
        {
            **report(index, rounds),
            **{"family": "maze", "split": "test", "tasks": "maze", "name": name, "kind": "method", "seeds": 5},
            **{"agent": "actor_critic", "training": {"env_steps": 123_456_789}, "probability": 0.5},
            "verdict": "no difference shown",
        }
        for index, name in enumerate(names)
    ]


def score_and_interval(report):
    low, high = map(tables.number, report["ci95"])
    return re.compile(rf"(?<!\S){re.escape(tables.number(report['score']))} +{re.escape(f'{low} to {high}')}(?!\S)")


@pytest.mark.parametrize("rounds", [2, 3, 5, 17, 100])
@pytest.mark.parametrize("width", WIDTHS)
def test_an_evaluation_fits_and_cuts_no_number(width, rounds):
    evaluation = evaluation_of(NAMES, rounds)
    lines = rendered(width, lambda console: tables.show_evaluation(console, evaluation))
    table = lines[1 : next(index for index, line in enumerate(lines) if line.startswith("Score: "))]
    assert all(len(line) <= width for line in table)
    reports = [evaluation, *evaluation["members"], *list(evaluation["baselines"].values())[:-1]]
    for shown in reports:
        assert sum(score_and_interval(shown).search(line) is not None for line in table) == 1
    returns = {tables.number(value) for shown in reports for value in shown["returns"]}
    for line in table[1:]:
        for number in re.findall(r"(?<!\S)-\d\S*", line.partition(" to ")[2]):
            assert number in returns | {"-0.00"}, line
    headings = re.findall(r"(?:round |r)(\d+)", table[0])
    assert headings[-1] == str(rounds - 1)
    if width >= 80:
        assert headings[0] == "0"
    left_out = rounds - len(headings)
    assert (f"Left out for want of width: {left_out} of {rounds} rounds." in lines) == (left_out > 0)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_fits_and_cuts_no_number(width):
    rows = rows_of(NAMES, 3)
    lines = rendered(width, lambda console: tables.show_comparison(console, rows, ["Something is missing."]))
    table = lines[1 : next(index for index, line in enumerate(lines) if line.startswith("Verdict: "))]
    assert all(len(line) <= width for line in table)
    for row in rows:
        assert sum(score_and_interval(row).search(line) is not None for line in table) == 1
    left_out = [line for line in lines if line.startswith("Left out for want of width: ")]
    for heading, kept in (("seeds", "seeds"), ("before", "before"), ("agent", "agent"), ("training steps", "steps")):
        assert (kept in table[0]) == (heading not in "".join(left_out)), heading
    assert not left_out or width < 200
    assert lines[-1] == "Something is missing."


def test_wide_enough_nothing_is_shortened():
    evaluation = evaluation_of(("maml", "scratch"), 5)
    lines = rendered(200, lambda console: tables.show_evaluation(console, evaluation))
    assert lines[1].split() == ["score", "95", "%", *(word for index in range(5) for word in ("round", str(index)))]
    rows = rows_of(("maml", "scratch"), 3)
    lines = rendered(200, lambda console: tables.show_comparison(console, rows, []))
    headings = "agent seeds training steps score 95 % verdict P(beats it) before after"
    assert " ".join(lines[1].split()) == headings
    assert "123,456,789" in lines[2]


def test_middle_rounds_go_first_then_headings_then_names_wrap():
    numbers = ["1.00"]
    name = Column("", ["some words"], is_text=True)
    middle = Column("round 1", numbers, "r1", leaves=-2)
    ends = [Column("round 0", numbers, "r0", leaves=1), Column("round 2", numbers, "r2", leaves=2)]

    def at(width):
        left_out: list[str] = []
        columns = [name, ends[0], middle, Column("…", [""], is_gap=True), ends[1]]
        lines = rendered(width, lambda console: left_out.extend(show(console, columns)))
        return [" ".join(line.split()) for line in lines], left_out

    assert at(37) == (["round 0 round 1 round 2", "some words 1.00 1.00 1.00"], [])
    assert at(36) == (["round 0 … round 2", "some words 1.00 1.00"], ["round 1"])
    assert at(31) == (["round 0 … round 2", "some words 1.00 1.00"], ["round 1"])
    assert at(30) == (["r0 … r2", "some words 1.00 1.00"], ["round 1"])
    assert at(25) == (["r0 … r2", "some words 1.00 1.00"], ["round 1"])
    assert at(24) == (["r0 … r2", "some 1.00 1.00", "words"], ["round 1"])
    assert at(19) == (["… r2", "some words 1.00"], ["round 0", "round 1"])


def test_words_are_kept_whole():
    words = ["several", "words", "of", "a", "moderate", "length"]
    evaluation = evaluation_of((" ".join(words), "scratch"), 6)
    lines = rendered(60, lambda console: tables.show_evaluation(console, evaluation))
    assert set(words) <= {word for line in lines for word in line.split()}
