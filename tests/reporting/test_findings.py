"""Sentences that follow from the intervals, of scores whose verdicts are known."""

from jaxmeta.reporting import comparison
from jaxmeta.reporting.findings import findings
from tests import boards


def found(**scores):
    """The findings of one family with methods of these scores beside a baseline of 0.5."""
    cells = [boards.cell(name, score, tasks="maze") for name, score in scores.items()]
    return findings(comparison.rows([*cells, boards.cell("scratch", 0.5, tasks="maze", kind="baseline")]))


def test_the_best_is_named_with_its_interval_and_its_difference():
    scratch = boards.cell("scratch", 0.5, tasks="maze", kind="baseline")
    rows = comparison.rows([boards.cell("rl2", 0.9, tasks="maze"), scratch])
    best = next(row for row in rows if row["name"] == "rl2")
    baseline = next(row for row in rows if row["name"] == "scratch")
    low, high = best["ci95"]
    less, more = best["difference"]
    score = f"{best['score']:.2f} (95 % interval {low:.2f} to {high:.2f})"
    beside = f"the best tuned baseline, scratch ({baseline['score']:.2f}), by {less:.2f} to {more:.2f}"
    assert findings(rows) == [f"In maze, rl2 scores highest: {score}, above {beside}."]


def test_others_above_and_below_are_listed():
    (sentence,) = found(rl2=0.95, maml=0.9, anil=0.88, reptile=0.1)
    assert sentence.endswith(" anil and maml are above that baseline too. reptile is below it.")


def test_what_is_not_shown_is_not_claimed():
    (sentence,) = found(rl2=0.5)
    assert "no difference shown to the best tuned baseline" in sentence
    assert "above" not in sentence
    (sentence,) = found(rl2=0.1)
    assert "below the best tuned baseline" in sentence


def test_without_a_baseline_or_a_score_little_is_said():
    alone = comparison.rows([boards.cell("rl2", 0.5, tasks="maze")])
    assert findings(alone)[0].endswith("with no tuned baseline to compare with.")
    assert findings([{**row, "score": None} for row in alone]) == []


def test_over_families_wins_are_counted():
    cells = [
        boards.cell(name, score, tasks=family)
        for family, scores in {"maze": {"rl2": 0.9, "maml": 0.1}, "bandit": {"rl2": 0.9, "maml": 0.5}}.items()
        for name, score in scores.items()
    ]
    baselines = [boards.cell("scratch", 0.5, tasks=family, kind="baseline") for family in ("maze", "bandit")]
    *_, winners, never = findings(comparison.rows([*cells, *baselines]))
    assert winners == "Above the best tuned baseline: rl2 in 2 of 2 families."
    assert never == "Shown to be above it in no family: maml."
