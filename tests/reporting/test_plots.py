"""The pictures: that they are drawn, from what runs and evaluations hold, and say what they show."""

import re
import sys

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.image import imread

from jaxmeta.core.errors import UsageError
from jaxmeta.reporting import comparison, curves, looks, plots
from jaxmeta.reporting import html as report
from tests import boards


def measured(returns):
    return {"returns": returns, "returns_ci95": [[value - 0.5, value + 0.5] for value in returns]}


EVALUATION = {
    "algorithm": "maml",
    "tasks": "grid_navi",
    "split": "test",
    "num_tasks": 128,
    "env_steps": 720,
    **measured([-1.0, 3.0, 7.0, 8.0]),
    "baselines": {
        "random": measured([-1.0, -1.1, -1.0, -0.9]),
        "scratch": measured([-1.0, 1.0, 4.0, 7.8]),
        "finetune": measured([0.0, 1.5, 3.0, 3.5]),
        "oracle": measured([11.0] * 4),
    },
}
METRICS = [
    {"meta_step": step, "env_steps": 28_800 * step, "return": np.sin(step / 9), "loss": 1.0 / step}
    for step in range(1, 101)
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved while a test runs."""
    saved = []
    savefig = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda figure, path: saved.append(figure) or savefig(figure, path)
    )
    return saved


def test_training_shows_return_and_loss_over_environment_steps(tmp_path, figures):
    curves.plot_training(METRICS, tmp_path / "training.png")
    returns, losses = figures[0].axes
    assert returns.get_xlabel() == losses.get_xlabel() == "Environment steps (moving average of 5 log points)"
    np.testing.assert_array_equal(returns.lines[0].get_ydata(), [record["return"] for record in METRICS])
    np.testing.assert_array_equal(losses.lines[0].get_xdata(), [record["env_steps"] for record in METRICS])
    assert imread(tmp_path / "training.png").std() > 0


def test_one_log_point_is_enough(tmp_path):
    curves.plot_training(METRICS[:1], tmp_path / "training.png")
    assert (tmp_path / "training.png").is_file()
    with pytest.raises(UsageError, match="metrics must hold at least one log point"):
        curves.plot_training([], tmp_path / "none.png")


def test_adaptation_names_every_curve_and_dashes_the_oracle(tmp_path, figures):
    curves.plot_adaptation(EVALUATION, tmp_path / "adaptation.png")
    (axes,) = figures[0].axes
    assert {text.get_text() for text in axes.texts} == {"maml", "random", "scratch", "finetune", "oracle"}
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["oracle"].is_dashed()
    assert not lines["maml"].is_dashed()
    np.testing.assert_array_equal(lines["maml"].get_ydata(), EVALUATION["returns"])
    assert axes.get_xlabel() == "Rounds of adaptation (240 environment steps each)"
    assert len(axes.collections) == 4  # an interval for each but the oracle
    assert len({(line.get_color(), line.get_marker(), str(line.get_linestyle())) for line in axes.lines}) == 5
    assert lines["scratch"].get_color() == lines["finetune"].get_color() == looks.GREY
    assert imread(tmp_path / "adaptation.png").shape[1] >= 1000


def test_without_an_oracle_or_baselines_the_learner_stands_alone(tmp_path, figures):
    curves.plot_adaptation({**EVALUATION, "baselines": {}}, tmp_path / "adaptation.png")
    assert [line.get_label() for line in figures[0].axes[0].lines] == ["maml"]


def test_labels_do_not_cover_each_other():
    placed = curves.spread([3.0, 2.9, 3.05, 0.0], gap=0.5)
    assert placed[3] == 0.0
    assert np.min(np.diff(sorted(placed))) >= 0.5 - 1e-9
    assert np.argsort(placed).tolist() == [3, 1, 0, 2]


def test_pyplot_stays_untouched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now would fail
    curves.plot_training(METRICS, tmp_path / "training.png")


def texts_of(plot, rows):
    """All that is written in a figure."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", looks.as_svg(plot, rows, "figure", "A figure."))


def shown_methods(figure):
    """From the top of a figure of scores to its bottom."""
    axes = figure.axes[0]
    labels = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [label.get_text() for _, label in sorted(labels, key=lambda pair: -pair[0])]


def listed_methods(rows):
    """From the top of the table to its bottom."""
    return re.findall(r"^\| `(\w+)` ", report.markdown(rows), re.MULTILINE)


def test_methods_are_shown_in_all_families_beside_each_other():
    rows = comparison.rows(boards.board())
    texts = texts_of(plots.plot_scores, rows)
    for name in {row["family"] for row in rows} | {row["method"] for row in rows if row["kind"] != "reference"}:
        assert texts.count(name) == 1


def test_who_was_measured_in_one_easy_family_alone_does_not_come_first(tmp_path, figures):
    rows = comparison.rows([*boards.board(), boards.cell("mann", 1.0, tasks="bandit")])
    plots.plot_scores(rows, tmp_path / "scores.png")
    assert shown_methods(figures[0]) == listed_methods(rows) == ["maml", "rl2", "reptile", "mann", "scratch"]


def test_the_picture_and_the_table_have_one_order_where_one_family_pulls_a_mean_down(figures, tmp_path):
    scores = {"maml": (0.8, 0.7, 0.6, -3.0), "anil": (0.5, 0.5, 0.5, 0.5)}
    families = ("bandit", "cartpole", "grid_navi", "maze")
    rows = comparison.rows(
        boards.cell(method, mean, tasks=family)
        for method, means in scores.items()
        for family, mean in zip(families, means, strict=True)
    )
    assert [row["name"] for row in comparison.overall(rows)] == ["maml", "anil"]
    plots.plot_scores(rows, tmp_path / "scores.png")
    assert shown_methods(figures[0]) == listed_methods(rows) == ["maml", "anil"]
    assert figures[0].axes[0].get_yticks().tolist() == [0, -1]


def test_scores_off_the_scale_and_names_with_dollars_are_shown(tmp_path, figures):
    found = [boards.cell("a_$lot$", -0.9), boards.cell("scratch", 1.4, kind="baseline")]
    plots.plot_scores(comparison.rows(found), tmp_path / "scores.png")
    (axes,) = figures[0].axes
    low, high = axes.get_xlim()
    shown = [value for line in axes.lines for value in line.get_xdata()]
    assert low < min(shown) < -0.8
    assert 1.3 < max(shown) < high


def test_a_policy_written_for_a_family_is_shown_with_what_learns_there(tmp_path, figures):
    written = [
        boards.cell(name, mean, tasks="bandit", kind="reference") for name, mean in (("ucb1", 0.8), ("greedy", 0.3))
    ]
    rows = comparison.rows([*boards.board(), *written])
    plots.plot_scores(rows, tmp_path / "scores.png")
    bandit, grid_navi = figures[0].axes
    best = next(row["score"] for row in rows if row["name"] == "ucb1")
    dotted = [
        [line.get_xdata()[0] for line in axes.lines if line.get_xdata()[0] == best] for axes in (bandit, grid_navi)
    ]
    assert dotted == [[best], []]
    plots.plot_comparison([row for row in rows if row["family"] == "bandit"], tmp_path / "bandit.png")
    shown = {line.get_label() for line in figures[1].axes[0].lines}
    assert {"ucb1", "greedy", "random", "oracle", "maml"} <= shown


def test_a_family_without_a_scale_leaves_the_figure_empty():
    rows = [{**row, "score": None, "ci95": None} for row in comparison.rows(boards.board())]
    assert "maml" not in texts_of(plots.plot_scores, rows)


def test_what_was_swept_has_lines_of_its_own():
    cells = [boards.cell("maml", mean, hyperparams={"inner.learning_rate": mean}) for mean in (0.2, 0.7)]
    drawing = looks.as_svg(
        plots.plot_comparison, comparison.rows([*cells, *boards.references()]), "figure", "A figure."
    )
    for name in ("maml learning_rate=0.2", "maml learning_rate=0.7"):
        assert name in drawing
    assert looks.BLUE.lower() in drawing
    assert looks.ORANGE.lower() in drawing


def log_of(level, seeds=1):
    """Log points of a run whose return rises to a level; seed n is n higher."""
    returns = [[level * step / 10 + seed for seed in range(seeds)] for step in range(1, 11)]
    points = [{"env_steps": 100 * step, "return": float(np.mean(each))} for step, each in enumerate(returns, start=1)]
    more = [{"return_by_member": each} if seeds > 1 else {} for each in returns]
    return [{**point, "loss": 0.0, **extra} for point, extra in zip(points, more, strict=True)]


def test_curves_of_several_runs_stand_in_one_figure_with_seeds_as_bands():
    figure = curves.plot_curves({"rl2": log_of(2.0, seeds=3), "maml": log_of(1.0)})
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["rl2"].get_xdata(), np.arange(100, 1001, 100))
    np.testing.assert_allclose(lines["rl2"].get_ydata(), 2.0 * np.arange(1, 11) / 10 + 1)
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.2, 4.0))
    assert len({line.get_color() for line in axes.lines}) == 2
    assert axes.get_xlabel() == "Environment steps"
    assert "lowest to highest seed" in axes.get_ylabel()
    with pytest.raises(UsageError, match=r"^logs must have at least one run by its label"):
        curves.plot_curves({})
    with pytest.raises(UsageError, match=r"^logs\['rl2'\] must be lines of metrics"):
        curves.plot_curves({"rl2": log_of(1.0)}, metric="entropy")


def test_several_evaluations_stand_in_one_figure():
    other = {**EVALUATION, "algorithm": "rl2", **measured([0.0, 6.0, 9.0])}
    (axes,) = curves.plot_adaptation([EVALUATION, other]).axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["rl2"].get_ydata(), other["returns"])
    assert lines["rl2"].get_color() != lines["maml"].get_color()
    with pytest.raises(UsageError, match=r"^evaluation must be of the same tasks"):
        curves.plot_adaptation([EVALUATION, {**other, "tasks": "maze"}])


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_text_stays_text_in_files_for_papers(tmp_path, kind):
    path = tmp_path / f"curves.{kind}"
    curves.plot_curves({"rl2": log_of(2.0)}, path)
    content = path.read_bytes()
    if kind == "svg":
        assert b">Environment steps</text>" in content
    else:
        assert b"/Type3" not in content, "fonts are embedded as TrueType"
        assert b"/TrueType" in content or b"/CIDFontType2" in content


def test_a_legend_has_at_most_seven_colours_and_references_are_grey(figures, tmp_path):
    found = [boards.cell(f"method_{index}", 0.9 - index / 20, tasks="bandit") for index in range(10)]
    found += [cell for cell in boards.references() if cell["tasks"] == "bandit"]
    rows = comparison.rows([*found, boards.cell("scratch", 0.3, tasks="bandit", kind="baseline")])
    plots.plot_comparison(rows, tmp_path / "bandit.png")
    (legend,) = figures[0].legends
    look_of = {line.get_label(): line for line in figures[0].axes[0].lines}
    coloured = {line.get_color() for line in look_of.values()} - {looks.GREY, looks.INK}
    assert len(coloured) == 7
    assert look_of["method_0"].get_color() == looks.BLUE, "the best comes first"
    assert look_of["method_9"].get_color() == look_of["scratch"].get_color() == looks.GREY
    assert len(legend.get_texts()) == len(rows)


def test_runs_are_drawn_by_their_curves(figures, tmp_path):
    """Over the environment steps that every seed has reached."""
    cell = boards.cell("maml", 0.9, tasks="bandit")
    curve = {"0": [[10, 20, 30], [1.0, 2.0, 3.0]], "1": [[10, 20], [3.0, 4.0]]}
    rows = comparison.rows([{**cell, "curves": curve}, boards.cell("rl2", 0.5, tasks="bandit")])
    plots.plot_comparison(rows, tmp_path / "bandit.png")
    training = figures[0].axes[1]
    assert training.get_title(loc="left") == "Meta-training"
    (line,) = training.lines
    np.testing.assert_array_equal(line.get_xdata(), [10, 20])
    np.testing.assert_array_equal(line.get_ydata(), [2.0, 3.0])


def test_a_notebook_shows_a_figure_without_pyplot():
    assert curves.plot_curves({"rl2": log_of(2.0)})._repr_png_().startswith(b"\x89PNG")
