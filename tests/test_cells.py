"""Cells: kept whole, read with suspicion, and pooled where they differ by seeds alone."""

import json

import pytest

import jaxmeta
from jaxmeta import cells, jobs, runs
from jaxmeta.runs import RunDirectory
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
        (lambda text: "{}", "must hold format, "),
        (lambda text: text.replace("0.01", "0.02"), "must be as it was written, got one that was changed since."),
        (lambda text: text.replace('"format": 1', '"format": 2'), "format must be an integer from 1 to 1, got 2."),
        (lambda text: text.replace('"split":"test"', '"split":7'), "split must be a string, got 7."),
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
        "grid_navi-anil was begun and is not finished.",
        f"rl2 on grid_navi was made by jaxmeta 0.0.1, and this is {jaxmeta.__version__}.",
    ]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(jaxmeta.UsageError, match=r"^A folder to compare must hold an evaluated run"):
        cells.load(tmp_path)


def test_cells_of_other_seeds_are_pooled_and_the_same_ones_count_once():
    first, second = boards.cell("maml", seeds=(0, 1)), boards.cell("maml", seeds=(1, 2))
    (pooled,) = cells.pooled([first, second, first])
    assert pooled["seeds"] == [0, 1, 2]
    for point, one, other in zip(pooled["points"], first["points"], second["points"], strict=True):
        assert point["scores"] == [*one["scores"], other["scores"][1]]
    assert len(cells.pooled([first, boards.cell("maml", settings={"rounds": 3})])) == 2
    assert len(cells.pooled([first, boards.cell("maml", tasks="maze")])) == 2


def test_scores_of_other_numbers_of_tasks_are_not_pooled():
    with pytest.raises(jaxmeta.UsageError, match=r"^scores of 'maml' must be as many in each run .* got \[8, 16\]\.$"):
        cells.pooled([boards.cell("maml", seeds=(0,)), boards.cell("maml", seeds=(1,), num_tasks=8)])


def test_a_run_makes_a_cell_for_what_it_swept_and_what_it_stood_beside(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_config(jobs.prepare("maml", "probe", settings={"meta_steps": 2}).config)

    def report(**more):
        return {"returns": [0.0, 1.0], "task_scores": [0.5, 0.25], "steps_to_threshold": None} | more

    told = {
        **report(),
        **{"recipe": "maml", "agent": "dqn", "tasks": "probe", "split": "test", "settings": {"rounds": 1}},
        **{"train_seed": 3, "meta_env_steps": 50, "seed": 9, "num_tasks": 2, "env_steps": 8},
        "members": [report(seed=seed, hypers={"discount": value}) for value in (0.5, 0.9) for seed in (3, 4)],
        "baselines": {"random": report(), "scratch": report(members=[report(), report()])},
    }
    runs.write_json(run.evaluation, told)
    found, missing = cells.load(tmp_path)
    assert missing == []
    assert [(cell["kind"], cell["method"], cell["hypers"], cell["seeds"]) for cell in found] == [
        ("method", "maml", {"discount": 0.5}, [3, 4]),
        ("method", "maml", {"discount": 0.9}, [3, 4]),
        ("reference", "random", {}, [9]),
        ("baseline", "scratch", {}, [9, 10]),
    ]
    assert found[0]["commands"] == [f"jaxmeta evaluate {tmp_path} --split test --num-tasks 2 --seed 9"]
    assert found[0]["points"][0]["scores"] == [[0.5, 0.25]] * 2
