"""Cells: kept whole, read with suspicion, and pooled where they differ by seeds alone."""

import json

import pytest

import jaxmeta
from jaxmeta.reporting import cells, pooling
from jaxmeta.training import jobs
from jaxmeta.training import run_directory as runs
from jaxmeta.training.run_directory import RunDirectory
from tests import boards


def test_what_is_written_is_read(tmp_path):
    boards.write(tmp_path, [boards.cell("maml")])
    assert cells.load(tmp_path) == ([boards.cell("maml")], [])


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "must be a cell of a scoreboard, got what cannot be read as one."),
        (lambda text: "", "must be a cell of a scoreboard, got what cannot be read as one."),
        (lambda text: "[]", "must hold an object, got []."),
        (lambda text: "[" * 100_000, "must be a cell of a scoreboard, got what cannot be read as one."),
        (lambda text: "{}", "must hold format, "),
        (lambda text: text.replace("0.01", "0.02"), "must be as it was written, got one that was changed since."),
        (
            lambda text: text.replace('"format": 1', '"format": 2'),
            "format must be 1, that of this version of jaxmeta, got 2.",
        ),
        (lambda text: text.replace('"split":"test"', '"split":7'), "split must be a string, got 7."),
        (lambda text: text.replace('"kind": "method"', '"kind": "mthod"'), "kind must be one of baseline, method, "),
        (lambda text: text.replace('"seeds": [0,1,2]', '"seeds": [0,1]'), "points must have as many entries as there "),
        (
            lambda text: text.replace('"rounds":2,', '"rounds":3,'),
            "points must have as many entries as there are seeds",
        ),
    ],
)
def test_a_damaged_cell_is_told_and_the_others_stay(tmp_path, harm, sentence):
    boards.write(tmp_path, [boards.cell("maml"), boards.cell("rl2")])
    path = tmp_path / "grid_navi-maml.cell.json"
    path.write_text(harm(path.read_text()))
    found, missing = cells.load(tmp_path)
    assert [cell["method"] for cell in found] == ["rl2"]
    assert len(missing) == 1
    assert missing[0].startswith(repr(str(path)))
    assert sentence in missing[0]


def test_every_changed_character_of_a_result_is_seen(tmp_path):
    boards.write(tmp_path, [boards.cell("maml")])
    path = tmp_path / "grid_navi-maml.cell.json"
    text = path.read_text()
    places = [index for index, character in enumerate(text) if character.isdigit()][::97]
    assert len(places) > 5
    for place in places:
        path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
        with pytest.raises(jaxmeta.UsageError):
            cells.read(path)


def test_what_is_missing_is_told(tmp_path):
    old = boards.cell("rl2", versions={"jaxmeta": "0.0.1"})
    boards.write(tmp_path, [boards.cell("maml"), old])
    for name in ("grid_navi-maml", "grid_navi-anil", "bandit-mapping"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "bandit-mapping.reason.json").write_text(json.dumps({"reason": "It must not."}))
    found, missing = cells.load(tmp_path)
    assert len(found) == 2
    assert missing == [
        "bandit-mapping does not apply: It must not.",
        "grid_navi-anil was started and is not finished.",
        "Not made: bandit-maml, bandit-rl2.",
        f"Made by jaxmeta 0.0.1, and this is {jaxmeta.__version__}: rl2 on grid_navi.",
    ]


def test_a_cell_that_was_taken_away_is_told_a_baseline_as_well(tmp_path):
    boards.write(tmp_path, [*boards.board(), boards.cell("gittins", tasks="bandit", kind="reference")])
    assert cells.load(tmp_path)[1] == []
    for name in ("bandit-scratch", "grid_navi-rl2", "grid_navi-random"):
        (tmp_path / f"{name}.cell.json").unlink()
    assert cells.load(tmp_path)[1] == ["Not made: bandit-scratch, grid_navi-random, grid_navi-rl2."]


def test_a_whole_scoreboard_of_another_version_is_one_sentence(tmp_path):
    boards.write(tmp_path, [boards.cell(name, versions={"jaxmeta": "0.0.1"}) for name in ("maml", "rl2")])
    reported = f"Made by jaxmeta 0.0.1, and this is {jaxmeta.__version__}: all cells of {str(tmp_path)!r}."
    assert cells.load(tmp_path)[1] == [reported]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(jaxmeta.UsageError, match=r"^A folder to compare must hold an evaluated run"):
        cells.load(tmp_path)


def test_cells_of_other_seeds_are_pooled_and_the_same_ones_count_once():
    made = {"device": "1 x gpu", "versions": {"jaxmeta": "0.0.1"}}
    first, second = boards.cell("maml", seeds=(0, 1)), boards.cell("maml", seeds=(2, 3), **made)
    (pooled,), reported = pooling.pooled([first, second, first])
    assert reported == []
    assert pooled["seeds"] == [0, 1, 2, 3]
    for point, one, other in zip(pooled["points"], first["points"], second["points"], strict=True):
        assert point["scores"] == one["scores"] + other["scores"]
    assert pooled["training"]["seconds"] == first["training"]["seconds"] + second["training"]["seconds"]
    assert pooled["device"] == "1 x cpu and 1 x gpu"
    assert pooled["versions"] == {"jaxmeta": f"{jaxmeta.__version__} and 0.0.1"}


@pytest.mark.parametrize(
    "changed",
    [{"settings": {"adaptation": {"num_adaptations": 3}}}, {"tasks": "maze"}, {"num_tasks": 8}, {"tasks_seed": 7}],
    ids=str,
)
def test_what_differs_by_more_than_its_seeds_is_not_pooled(changed):
    cell = boards.cell("maml", seeds=(3, 4), **{name: value for name, value in changed.items() if name != "tasks_seed"})
    if "tasks_seed" in changed:
        cell["points"] = [point | {"seed": changed["tasks_seed"]} for point in cell["points"]]
    assert len(pooling.pooled([boards.cell("maml"), cell])[0]) == 2


def test_the_same_seed_with_other_results_is_told():
    (pooled,), (sentence,) = pooling.pooled([boards.cell("maml"), boards.cell("maml", 0.6, commands=["jaxmeta again"])])
    assert pooled == boards.cell("maml")
    assert sentence == (
        "maml on grid_navi is there with seed 0, 1, 2 more than once, and not alike: the first counts, not that of "
        "jaxmeta again."
    )


def test_cells_that_share_seeds_share_their_time():
    first, second = boards.cell("maml", seeds=(0, 1)), boards.cell("maml", seeds=(0, 1, 2))
    for one, other in zip(first["points"], second["points"], strict=True):
        other |= {name: one[name] + other[name][2:] for name in cells.MEASURED}
    (pooled,), reported = pooling.pooled([first, second])
    assert (pooled["seeds"], reported) == ([0, 1, 2], [])
    assert pooled["training"]["seconds"] == pytest.approx(12.0 + 12.0 / 3)


def test_of_folders_without_results_each_is_told(tmp_path):
    boards.write(tmp_path / "broken", [boards.cell("maml")])
    (tmp_path / "broken" / "grid_navi-maml.cell.json").write_text("{")
    (tmp_path / "empty").mkdir()
    with pytest.raises(jaxmeta.UsageError) as refused:
        jaxmeta.compare(tmp_path / "broken", tmp_path / "empty")
    assert "broken/grid_navi-maml.cell.json' must be a cell of a scoreboard" in str(refused.value)
    assert "must hold an evaluated run, or cells of a scoreboard" in str(refused.value)
    with pytest.raises(jaxmeta.UsageError, match=r"^The folders to compare must hold .*, got none\.$"):
        jaxmeta.compare()


def test_a_folder_without_results_is_told_beside_others(tmp_path):
    boards.write(tmp_path / "board", [boards.cell("maml")])
    (tmp_path / "empty").mkdir()
    found, missing = pooling.load_all([tmp_path / "empty", tmp_path / "board"])
    assert [cell["method"] for cell in found] == ["maml"]
    assert missing == [
        f"A folder to compare must hold an evaluated run, or cells of a scoreboard, got {str(tmp_path / 'empty')!r}."
    ]


@pytest.fixture
def evaluated(tmp_path):
    """A run of four members, with an evaluation that nobody measured, and that evaluation."""
    run = RunDirectory(tmp_path)
    run.write_config(jobs.prepare("maml", "probe", settings={"meta_steps": 2}).config)
    log_point = {"meta_step": 2, "env_steps": 50, "seconds": 8.0, "loss": 1.0, "return": 0.5}
    run.metrics.write_text(json.dumps(log_point) + "\n")

    def report(**more):
        return {"returns": [0.0, 1.0], "task_scores": [0.5, 0.25], "steps_to_threshold": None} | more

    reported = {
        **report(),
        **{"algorithm": "maml", "agent": "dqn", "tasks": "probe", "split": "test"},
        "settings": {"adaptation": {"num_adaptations": 1}, "agent": {"type": "dqn", "n_step": 2}},
        **{"train_seed": 3, "meta_env_steps": 50, "seed": 9, "num_tasks": 2, "env_steps": 8, "seconds": 0.1},
        "members": [
            report(seed=seed, hyperparams={"agent.discount": value}) for value in (0.5, 0.9) for seed in (3, 4)
        ],
        "baselines": {
            "random": report(),
            "scratch": report(members=[report(), report()], tuned={"inner.learning_rate": 0.01, "on_edge": False}),
            "finetune": report(members=[report(), report()]),
        },
    }
    runs.write_json(run.evaluation, reported)
    return run, reported


def test_a_run_makes_a_cell_for_what_it_swept_and_what_it_stood_beside(evaluated):
    run, reported = evaluated
    found, missing = cells.load(run.path)
    assert missing == []
    assert [(cell["kind"], cell["method"], cell["hyperparams"], cell["seeds"]) for cell in found] == [
        ("method", "maml", {"agent.discount": 0.5}, [3, 4]),
        ("method", "maml", {"agent.discount": 0.9}, [3, 4]),
        ("reference", "random", {}, [9]),
        ("baseline", "scratch", {}, [9, 10]),
        ("baseline", "finetune", {}, [9, 10]),
    ]
    assert found[0]["commands"] == [
        f"jaxmeta train maml probe --agent dqn --meta-steps 2 --seed 0 --run-dir {run.path}",
        f"jaxmeta evaluate {run.path} --split test --num-tasks 2 --seed 9 --baselines",
    ]
    assert found[0]["points"][0]["scores"] == [[0.5, 0.25]] * 2
    assert found[0]["training"]["seconds"] == 4.0, "its half of the members' time"
    assert found[0]["settings"] == reported["settings"]
    beside = {"adaptation.num_adaptations": 1, "inner.learning_rate": 0.01, "on_edge": False}
    assert found[3]["settings"] == beside, "its own, and the lifetime"
    assert [cell["training"].get("env_steps") for cell in found] == [50, 50, None, None, 50]


@pytest.mark.parametrize(
    "harm",
    [
        lambda reported: reported.update(steps_to_threshold="x"),
        lambda reported: reported.update(seconds="fast"),
        lambda reported: reported["members"][0].update(steps_to_threshold=[]),
        lambda reported: reported["members"][0].update(task_scores=[0.5]),
        lambda reported: reported["members"][0].update(returns=[0.5]),
        lambda reported: reported["baselines"]["scratch"].update(members=7),
        lambda reported: reported["baselines"]["scratch"]["members"][0].update(task_scores=[0.5]),
        lambda reported: reported["baselines"]["scratch"].update(tuned=[]),
    ],
)
def test_an_evaluation_that_is_damaged_is_refused(evaluated, harm):
    run, reported = evaluated
    harm(reported)
    runs.write_json(run.evaluation, reported)
    with pytest.raises(jaxmeta.UsageError, match=r"evaluation\.json"):
        cells.load(run.path)
