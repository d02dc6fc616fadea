"""Learners as files: what is written is what adapts, equal learners are equal files, and damaged ones are refused."""

import json
import shutil
import zipfile

import jax
import numpy as np
import pytest
from safetensors.numpy import load as deserialised
from safetensors.numpy import save as serialised

import jaxmeta
from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.training import checkpoints, hub, jobs, learner_files, pretrained
from jaxmeta.training import seeds as multi_seed
from tests import tiers
from tests.conftest import TINY, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two members."""
    folder = tmp_path_factory.mktemp("learners")
    algorithm = "meta_sgd" if tiers.is_full() else "reptile"
    settings = tiny(algorithm, {"meta_steps": 2})
    return jaxmeta.train(algorithm, "grid_navi:size=3,horizon=4", settings, seeds=(1, 2), run_dir=folder / "run")


@pytest.fixture(scope="module", params=["learner.zip", "folder"])
def learner(run, request, tmp_path_factory):
    """The second member, in a zip file and in a folder."""
    return run.export(tmp_path_factory.mktemp("exported") / request.param, member=1)


def test_what_was_exported_is_what_adapts(run, learner):
    again = jaxmeta.load(learner)
    trained, states, *_ = jobs.restore(run.path)
    expected = trained.meta(multi_seed.members(states)[1])
    assert checkpoints.state_digest(again.learner.meta(again.state)) == checkpoints.state_digest(expected)
    assert (again.config["seed"], again.state.steps_taken, again.path) == (2, 2, None)
    assert again.card["commands"][0].startswith("jaxmeta train ")
    assert set(again.card["versions"]) >= {"jax", "python"}


def test_equal_learners_are_equal_files_and_are_exported_again(run, learner, tmp_path):
    first = run.export(tmp_path / "a.zip", member=1).read_bytes()
    assert first == run.export(tmp_path / "b.zip", member=1).read_bytes()
    assert first == jaxmeta.load(learner).export(tmp_path / "c.zip").read_bytes()
    assert first != run.export(tmp_path / "d.zip", member=0).read_bytes()


def test_nothing_is_pickled(learner):
    if learner.is_dir():
        assert sorted(path.name for path in learner.iterdir()) == [learner_files.CARD, learner_files.ARRAYS]
        assert deserialised((learner / learner_files.ARRAYS).read_bytes())
    else:
        with zipfile.ZipFile(learner) as archive:
            assert sorted(archive.namelist()) == [learner_files.CARD, learner_files.ARRAYS]
            assert deserialised(archive.read(learner_files.ARRAYS))


@pytest.mark.slow
def test_an_exported_learner_is_evaluated_as_the_member_that_it_was(learner):
    reported = jaxmeta.load(learner).evaluate(num_tasks=3, with_baselines=False)
    assert reported["train_seed"] == 2
    assert len(reported["returns"]) == TINY["num_adaptations"] + 1


def test_the_card_has_the_scores_of_the_evaluation(tmp_path):
    run = jaxmeta.train(
        "scratch", "grid_navi:size=3,horizon=4", tiny("scratch", {}), run_dir=tmp_path / "run", meta_steps=1
    )
    evaluation = run.evaluate(num_tasks=2, with_baselines=False, with_gap_and_cost=False)
    figures = jaxmeta.load(run.export(tmp_path / "a.zip")).card["figures"]
    assert (figures["score"], figures["returns"]) == (evaluation["score"], evaluation["returns"])


HARMS = {
    "truncated": lambda card, arrays: (card, arrays[:-30]),
    "another digest": lambda card, arrays: (card | {"digest": "0" * 64}, arrays),
    "another value": lambda card, arrays: (card, arrays[:-4] + bytes(4)),
    "no arrays": lambda card, arrays: (card, None),
    "foreign": lambda card, arrays: (card, b"PK" * 100),
    "too large": lambda card, arrays: (card, arrays + bytes(2**21)),
    "renamed": lambda card, arrays: (
        card,
        serialised({f"x{name}": leaf for name, leaf in deserialised(arrays).items()}),
    ),
    "cut card": lambda card, arrays: (json.dumps(card)[:-30], arrays),
    "poor card": lambda card, arrays: ({"summary": "A test."}, arrays),
    "another network": lambda card, arrays: (
        card | {"config": card["config"] | {"settings": card["config"]["settings"] | {"agent.hidden": [9]}}},
        arrays,
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_one_is_refused(learner, tmp_path, harm):
    folder = tmp_path / "small"
    if learner.is_dir():
        shutil.copytree(learner, folder)
    else:
        shutil.unpack_archive(learner, folder)
    card, arrays = json.loads((folder / learner_files.CARD).read_text()), (folder / learner_files.ARRAYS).read_bytes()
    card, arrays = HARMS[harm](card, arrays)
    (folder / learner_files.CARD).write_text(card if isinstance(card, str) else json.dumps(card))
    (folder / learner_files.ARRAYS).unlink()
    if arrays is not None:
        (folder / learner_files.ARRAYS).write_bytes(arrays)
    path = folder
    if not learner.is_dir():
        path = tmp_path / "small.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for each in folder.iterdir():
                archive.write(each, each.name)
    with pytest.raises(jaxmeta.CheckpointError, match="of another network" if harm == "another network" else None):
        jaxmeta.load(path)
    if learner.is_dir() and harm in ("cut card", "poor card"):
        assert "has no card that can be read" in pretrained.available(tmp_path)["small"]


def test_what_a_card_imports_must_be_allowed(run, tmp_path, monkeypatch):
    run.export(tmp_path / "folder")
    path = tmp_path / "folder" / learner_files.CARD
    card = json.loads(path.read_text())
    card["config"]["tasks"] = "trap:make"
    path.write_text(json.dumps(card))
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))
    with pytest.raises(jaxmeta.UsageError, match=r"^tasks of .* must be registered, or be loaded with --allow-import"):
        jaxmeta.load(tmp_path / "folder")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("export", "jaxmeta export must be given either RUN_DIR or PRETRAINED, got none."),
        ("export rl2-maze", "--out must be given a value, got none."),
        ("export rl2-maze --out taken", "--out must be a new folder, or end in .zip, got 'taken'."),
        ("export rl2-maze --out none/a.zip", "--out must be a file in a folder that exists, got 'none/a.zip'."),
        ("export rl2-maze --out a.zip --member 1", "member must be from 0 to 0, got 1."),
        (
            "evaluate notes.txt",
            "A run to load must be the folder of a run or a file that jaxmeta export wrote, got 'not",
        ),
        (
            "evaluate hf://owner",
            "A run to load must be written hf://OWNER/NAME or hf://OWNER/NAME@REVISION, got 'hf://",
        ),
    ],
)
def test_mistakes_are_refused(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    assert main(words.split()) == USAGE_STATUS
    assert capsys.readouterr().err.startswith(sentence)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "taken"]


def test_the_command_exports_what_evaluate_takes(run, tmp_path, capsys):
    out = tmp_path / "learner.zip"
    assert main(["export", str(run.path), "--member", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert jaxmeta.load(out).config["seed"] == 2


def test_a_learner_on_the_hub_is_read_from_the_local_copy(run, tmp_path, monkeypatch):
    """The hub's own cache, with no network: a repository as it lies there after a download."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    commit = "0" * 40
    home = tmp_path / "models--owner--name"
    run.export(home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda *names, **options: real(*names, **options, cache_dir=tmp_path, local_files_only=True),
    )
    from huggingface_hub import _snapshot_download

    real = _snapshot_download.snapshot_download
    loaded = jaxmeta.load("hf://owner/name")
    np.testing.assert_array_equal(
        *(jax.tree.leaves(each)[0] for each in (loaded.learner.meta(loaded.state), run.learner.meta(run.members[0])))
    )
    with pytest.raises(jaxmeta.UsageError, match=r"^A run to load must be a repository that can be read, got 'hf://ow"):
        jaxmeta.load("hf://owner/other")


def test_without_the_extra_the_sentence_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(jaxmeta.UsageError, match=r"pip install 'jaxmeta\[hub\]'"):
        hub.fetch("hf://owner/name")


def test_a_folder_is_not_overwritten(run, learner):
    if learner.is_dir():
        with pytest.raises(jaxmeta.UsageError, match=r"^The folder of a learner must be new, got "):
            run.export(learner)
