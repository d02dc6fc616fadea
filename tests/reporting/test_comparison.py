"""What cells say together, beside what is known of numbers that were made up."""

import io
import itertools

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from jaxmeta.evaluation import statistics
from jaxmeta.reporting import comparison, naming, tables
from jaxmeta.reporting import html as report
from tests import boards


def by_method(rows, family="grid_navi"):
    return {row["method"]: row for row in rows if row["family"] == family}


def test_methods_come_before_what_they_are_held_against_and_the_best_comes_first():
    rows = comparison.rows(boards.board())
    assert [row["method"] for row in rows if row["family"] == "grid_navi"] == [
        *("maml", "rl2", "reptile", "scratch", "oracle", "random")
    ]
    assert [row["family"] for row in rows] == ["bandit"] * 6 + ["grid_navi"] * 6


def test_losses_are_told_as_plainly_as_wins():
    rows = by_method(comparison.rows(boards.board()))
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts["maml"] == "better"
    assert verdicts["reptile"] == "worse"
    assert verdicts["rl2"] == "no difference shown"
    assert verdicts["scratch"] is verdicts["oracle"] is None
    assert rows["maml"]["baseline"] == "scratch"
    assert rows["maml"]["difference"][0] > 0 > rows["reptile"]["difference"][1]


def test_what_was_measured_in_other_tasks_is_not_compared():
    few = boards.cell("maml", 0.9, num_tasks=8)
    rows = by_method(comparison.rows([few, boards.cell("scratch", 0.5, kind="baseline")]))
    assert rows["maml"]["verdict"] == "not compared"
    assert rows["maml"]["probability"] is None


def test_a_better_baseline_in_other_tasks_does_not_keep_from_a_comparison():
    few = boards.cell("finetune", 0.9, kind="baseline", num_tasks=8)
    rows = by_method(comparison.rows([boards.cell("maml", 0.7), boards.cell("scratch", 0.5, kind="baseline"), few]))
    assert rows["maml"]["baseline"] == "scratch"
    assert rows["maml"]["verdict"] == "better"


def test_cells_of_one_label_are_told_apart_and_all_of_them_are_shown():
    settings = {"adaptation": {"num_adaptations": 3}, "agent": {"hidden": [8]}}
    found = [
        boards.cell("maml", 0.9),
        boards.cell("maml", 0.2, settings=settings),
        boards.cell("scratch", 0.5, kind="baseline"),
        boards.cell("scratch", 0.5, kind="baseline", num_tasks=8),
    ]
    rows = {row["name"]: row for row in comparison.rows(found)}
    assert list(rows) == [
        "maml adaptation.num_adaptations=2 agent.hidden=None",
        "maml adaptation.num_adaptations=3 agent.hidden=[8]",
        "scratch tasks=8",
        "scratch tasks=16",
    ]
    assert rows["maml adaptation.num_adaptations=2 agent.hidden=None"]["beats"]["scratch tasks=16"] > 0.9
    assert {row["name"] for row in comparison.overall(comparison.rows(found))} == set(rows)
    assert [row["name"] for row in comparison.rows([found[0], found[0]])] == ["maml (1)", "maml (2)"]


def test_a_single_seed_has_a_score_over_all_families_and_no_interval():
    found = [boards.cell("maml", seeds=(0,)), boards.cell("maml", tasks="maze")]
    (row,) = comparison.overall(comparison.rows(found))
    assert row["score"] == pytest.approx(0.5, abs=0.1)
    assert row["ci95"] is None


def test_what_was_evaluated_in_training_tasks_alone_has_no_gap():
    cell = boards.cell("maml")
    (row,) = comparison.rows([{**cell, "points": cell["points"][2:]}])
    assert row["family"] == "grid_navi, train"
    assert row["train"] == row["score"]
    assert row["gap"] is None


def test_an_area_needs_an_oracle_that_is_better_than_chance():
    chance, oracle = boards.references()
    level = {**oracle, "points": chance["points"]}
    assert by_method(comparison.rows([boards.cell("maml"), chance, level]))["maml"]["area"] is None


def test_an_area_is_between_the_ends_of_the_same_tasks():
    elsewhere = [
        {**cell, "points": [{**cell["points"][0], "seed": 7, "returns": [[99.0] * 3]}]} for cell in boards.references()
    ]
    alone, beside = (
        comparison.rows([boards.cell("maml"), *boards.references(), *others]) for others in ([], elsewhere)
    )
    assert next(row for row in beside if row["method"] == "maml")["area"] == alone[0]["area"] is not None


def test_a_row_says_what_its_cell_measured():
    cell = boards.cell("maml", 0.9)
    row = by_method(comparison.rows([cell, *boards.references()]))["maml"]
    scores = np.array(cell["points"][1]["scores"])
    assert row["score"] == pytest.approx(statistics.interquartile_mean(scores))
    assert row["ci95"] == pytest.approx(statistics.bootstrap_interval(scores))
    assert [budget[0] for budget in row["budgets"]] == [1000, 3000]
    assert row["train"] == pytest.approx(statistics.interquartile_mean(np.array(cell["points"][2]["scores"])))
    assert row["gap"] == pytest.approx(row["train"] - row["score"])
    assert row["shifted"] is None
    assert row["env_steps_per_second"] == 3 * 3000 / 12
    assert row["steps_to_threshold"] == 40
    assert row["area"] == pytest.approx(scores.mean() / 2, rel=1e-3), "a straight line from chance upwards"


def test_steps_to_the_threshold_are_none_where_half_the_seeds_do_not_get_there():
    cell = boards.cell("maml")
    for steps, expected in (([10, 30, 50], 30), ([10, 30, None], 30), ([10, None, None], None)):
        points = [point | {"steps_to_threshold": steps} for point in cell["points"]]
        assert comparison.row_of({**cell, "points": points}, None)["steps_to_threshold"] == expected


def test_the_probability_of_improvement_counts_pairs_of_trainings():
    rng = np.random.default_rng(0)
    scores, others = rng.integers(0, 4, (5, 7)), rng.integers(0, 4, (3, 7))
    wins = [
        (one > other) + 0.5 * (one == other)
        for task in range(7)
        for one, other in itertools.product(scores[:, task], others[:, task])
    ]
    assert statistics.probability_of_improvement(scores, others) == pytest.approx(np.mean(wins))
    made = comparison.improvements(naming.named(boards.board(["grid_navi"])))
    assert made["maml"]["reptile"] == 1 - made["reptile"]["maml"] > 0.9
    assert "oracle" not in made


def test_over_all_families_seeds_are_resampled_within_each():
    rows = {row["name"]: row for row in comparison.overall(comparison.rows(boards.board()))}
    assert set(rows) == {"maml", "reptile", "rl2", "scratch"}
    assert rows["maml"]["families"] == ["bandit", "grid_navi"]
    assert rows["maml"]["ci95"][0] < rows["maml"]["score"] < rows["maml"]["ci95"][1]
    apart = [np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])]
    assert statistics.stratified_interval(apart) == [0.5, 0.5], "which a plain bootstrap would spread from 0 to 1"


def test_the_prediction_interval_holds_the_next_value_as_often_as_it_says():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 6))
    intervals = [statistics.prediction_interval(known, 0.9) for *known, _ in values]
    held = [low <= value <= high for (low, high), value in zip(intervals, values[:, -1], strict=True)]
    assert stats.binomtest(int(np.sum(held)), len(held), 0.9).pvalue > 1e-3


def test_the_interval_of_a_difference_shrinks_where_tasks_are_shared():
    rng = np.random.default_rng(1)
    hardness = rng.normal(size=64)
    ours, theirs = (hardness + shift + 0.01 * rng.normal(size=(5, 64)) for shift in (0.1, 0.0))
    low, high = statistics.difference_interval(ours, theirs, trim=0)
    assert 0.08 < low < high < 0.12


def test_a_learner_in_context_has_no_agent(tmp_path):
    rows = by_method(comparison.rows(boards.board()))
    assert {name: row["agent"] for name, row in rows.items() if row["kind"] != "reference"} == {
        **{"maml": "dqn", "reptile": "dqn", "scratch": "dqn"},
        "rl2": None,
    }
    console = Console(file=io.StringIO(), width=200)
    tables.show_comparison(console, list(rows.values()), [])
    (line,) = (line for line in console.file.getvalue().splitlines() if line.startswith("rl2"))
    assert line.split()[1] == tables.ABSENT
    report.write_html(tmp_path / "page.html", list(rows.values()), [])
    assert ">None<" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("seeds", "tasks", "trim"), [(5, 64, 0.25), (1, 7, 0.25), (3, 5, 0.0)])
def test_trimmed_means_of_resamples_are_those_of_scipy(seeds, tasks, trim):
    samples = np.random.default_rng(0).normal(size=(20, seeds, tasks))
    expected = [stats.trim_mean(sample.ravel(), trim) for sample in samples]
    np.testing.assert_allclose(statistics._trimmed_means(samples, trim), expected, rtol=1e-12, atol=1e-12)
