"""The command line: what it answers, what it refuses and how, and with which exit status."""

import argparse
import errno
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from jaxmeta.algorithms import registry
from jaxmeta.cli import commands
from jaxmeta.cli import options as cli
from jaxmeta.cli.main import FAILURE_STATUS, INTERRUPT_STATUS, PIPE_STATUS, USAGE_STATUS, main, parse
from jaxmeta.core import compilation_cache
from jaxmeta.core.config import kinds, records_of
from jaxmeta.core.errors import NonFiniteError
from jaxmeta.core.settings import paths_of, replaced, shortest
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.reporting import catalogue, inspection, pooling
from jaxmeta.training import loop as training
from jaxmeta.training import pretrained

SMALL = ["--tasks", "probe", "--set", "hidden=4", "num_envs=2", "tasks_per_batch=2", "num_adaptations=1"]
TINY = [*SMALL, "num_query_envs=2"]
QUIET = ["--no-compilation-cache"]
REPORT = {"returns": [0.0, 0.5], "returns_ci95": [[-0.1, 0.1], [0.4, 0.6]], "score": 0.5, "ci95": [0.4, 0.6]}
RUN_DIR = os.path.join("runs", "maml-dqn-probe-seed0")


SCRATCH = ["scratch", *SMALL]
"""A run whose meta-steps do nothing, which compiles at once."""


def canned_evaluation(learner, state, tasks, config, *, split="test", num_tasks=128, seed=0, on_stage, **_):
    """What `evaluate` returns, at once."""
    about = {
        "algorithm": config["algorithm"],
        "tasks": tasks.name,
        "agent": "dqn",
        "split": split,
        "num_tasks": num_tasks,
    }
    about |= {"settings": config["settings"], "train_seed": config["seed"]}
    about |= {"seed": seed, "tasks_seen": False, "env_steps": 30, "meta_env_steps": int(state.step), "score_mean": 0.5}
    return {
        **about,
        **REPORT,
        "task_scores": [0.4, 0.6],
        "steps_to_threshold": 10,
        "seconds": 0.25,
        "baselines": {
            "random": {**REPORT, "task_scores": [0.1, 0.2]},
            "scratch": {**REPORT, "task_scores": [0.2, 0.3], "members": [{**REPORT, "task_scores": [0.2, 0.3]}]},
        },
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a tiny run, made by the command line."""
    run_dir = tmp_path_factory.mktemp("cli") / "run"
    options = ["--meta-steps", "4", "--log-every", "2", "--run-dir", str(run_dir), "--no-evaluate"]
    assert main(["train", *SCRATCH, *options, *QUIET]) == 0
    return run_dir


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def subprocess_environment(folder):
    own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**own, "XDG_CACHE_HOME": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            "tran",
            "The command must be one of compare, evaluate, export, inspect, list, report, show, train, got 'tran'. "
            "Did you mean 'train'?",
        ),
        (
            "list mamml",
            "NAME must be one of maml, fomaml, maze, mann, anil and 35 more (`jaxmeta list` shows all), got 'mamml'. "
            "Did you mean 'maml'?",
        ),
        ("list maml extra", "jaxmeta list must be given at most NAME, got 'extra'."),
        ("train maml maze extra", "jaxmeta train must be given at most ALGORITHM and TASKS, got 'extra'."),
        ("evaluate " + "a" * 300, "A run to load must be one of "),
        ("train -- --seed", "algorithm must be one of "),
        ("train -- maml probe --seed", "jaxmeta train must be given options as its help shows them, got '--seed'."),
        ("train maml --recipe maml", "--recipe must be given without ALGORITHM, got both."),
        ("train maml probe --tasks maze", "--tasks must be given without TASKS, got both."),
        ("train --seed -1", "--seed must be an integer from 0 to 2147483647, got '-1'."),
        ("train --seed 2147483648", "--seed must be an integer from 0 to 2147483647, got '2147483648'."),
        ("train --seed one", "--seed must be an integer from 0 to 2147483647, got 'one'."),
        ("train --seed", "--seed must be given a value, got none."),
        ("train --meta-steps 0", "--meta-steps must be an integer of at least 1, got '0'."),
        ("train --meta-steps 1.5", "--meta-steps must be an integer of at least 1, got '1.5'."),
        ("train --log-every 0", "--log-every must be an integer of at least 1, got '0'."),
        ("train --checkpoint-every 0", "--checkpoint-every must be an integer of at least 1, got '0'."),
        ("train --set", "--set must be written key=value, got ''."),
        ("train --set num_envs", "--set must be written key=value, got 'num_envs'."),
        ("train --set num_envs=1 --set num_envs=2", "--set must name a setting once, got 'num_envs' twice."),
        ("train --agent dqn --set agent=dqn", "--set must name a setting once, got 'agent' twice."),
        ("train --set inner.learning_rate=nan", "inner.learning_rate must be finite, got nan."),
        ("train --set inner.learning_rate=inf", "inner.learning_rate must be finite, got inf."),
        ("train --set num_envs=0", "num_envs must be at least 1, got 0."),
        ("train --set num_envs=two", "num_envs must be an integer, got 'two'."),
        ("train --seed 1 --seeds 0-3", "seed must be left out where seeds are given, got 1."),
        ("train --agent dpn", "agent must be one of actor_critic, dqn, tabular_q, got 'dpn'. Did you mean 'dqn'?"),
        ("train --tasks probe:nme=x", "--tasks probe option must be one of "),
        ("train --tasks probe:number=1,number=2", "--tasks probe options must name each option once, got 'number'."),
        ("train --tasks bandit:arms=9999999999", "bandit:arms must be at most 2147483647 in size, got 9999999999."),
        ("train --tasks .a:b", "--tasks must name a module by its whole path, got '.a:b'."),
        ("train --tasks prob", "--tasks must be one of "),
        ("train mamal", "algorithm must be one of "),
        ("train --recipe mamal", "algorithm must be one of "),
        (f"train --run-dir {'x' * 256}", "run_dir must be a possible path, got 'xxx"),
        ("train --resume", "run_dir must be the folder of a run, with a config.json, got 'runs"),
        ("train --run-dir used", "run_dir must be a new or empty folder, or be resumed, got 'used'."),
        ("train --run-dir used/file/run", "run_dir must be a folder that can be written, got 'used/file/run'."),
        ("evaluate", "jaxmeta evaluate must be given either RUN_DIR or PRETRAINED, got none."),
        ("evaluate used --pretrained rl2-maze", "--pretrained must be given without RUN_DIR, got both."),
        ("evaluate used", "run_dir must be the folder of a run, with a config.json, got 'used'."),
        ("evaluate used --run-dir other", "An option of jaxmeta evaluate must be one of "),
        ("train --evaluate --no-evaluate", "--evaluate must be given without --no-evaluate, got both."),
        ("evaluate used --baselines --no-baselines", "--baselines must be given without --no-baselines, got both."),
        ("evaluate used --retune --no-baselines", "--retune must be given without --no-baselines, got both."),
        ("evaluate used --num-tasks 0", "--num-tasks must be an integer of at least 2, got '0'."),
        ("evaluate used --json no/such.json", "--json must be a file in a folder that exists, got 'no/such.json'."),
        ("compare", "jaxmeta compare must be given at least one folder, got 'none'."),
        ("compare nowhere", "A folder to compare must hold an evaluated run, or cells of a scoreboard, got 'nowhere'."),
        ("inspect", "jaxmeta inspect must be given either RUN_DIR or --plan, got none."),
        ("inspect used --plan", "algorithm must be one of "),
        ("inspect used other", "jaxmeta inspect must be given options as its help shows them, got 'other'."),
        ("inspect --plan a b c", "jaxmeta inspect must be given options as its help shows them, got 'c'."),
        ("inspect used --seed 0", "--seed must come with --plan, got RUN_DIR 'used'."),
        ("inspect used --set num_envs=1", "--set must come with --plan, got RUN_DIR 'used'."),
        ("inspect used --meta-steps 5", "--meta-steps must come with --plan, got RUN_DIR 'used'."),
        ("inspect --plan --meta-steps 0", "--meta-steps must be an integer of at least 1, got '0'."),
        ("inspect --plan --set num_envs=0", "num_envs must be at least 1, got 0."),
        ("inspect --plan --tasks prob", "--tasks must be one of "),
        ("inspect --plan --json used", "--json must be a file in a folder that exists, got 'used'."),
        ("inspect --plan --run-dir used", "An option of jaxmeta inspect must be one of "),
        ("inspect nowhere", "run_dir must be the folder of a run, with a config.json, got 'nowhere'."),
        (f"inspect used --json {os.devnull}", "--json must be a file in a folder that exists, got "),
        ("inspect used --json used", "--json must be a file in a folder that exists, got 'used'."),
    ],
)
def test_a_mistake_is_one_sentence_and_touches_nothing(folder, capsys, argv, sentence):
    (folder / "used").mkdir()
    (folder / "used" / "file").touch()
    before = snapshot(folder)
    cache = QUIET if argv.startswith(("train", "evaluate ", "inspect ")) else []
    argv = argv.split()
    assert main([*argv[:1], *cache, *argv[1:]]) == USAGE_STATUS
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert snapshot(folder) == before


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
@pytest.mark.parametrize(
    "argv",
    [
        ["train", *TINY, "--run-dir", "/proc/nope", *QUIET],
        ["inspect", "--plan", "--json", "/proc/nope.json", *QUIET],
        ["report", "run", "--out", "/proc/nope.html"],
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(folder, capsys, monkeypatch, argv):
    for module, name in ((training, "run_job"), (inspection, "plan"), (pooling, "load_all")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("work began"))
    assert main(argv) == USAGE_STATUS
    out, err = capsys.readouterr()
    assert out == ""
    assert " that can be written" in err
    assert err.endswith(" (No such file or directory).\n")
    assert err.count("\n") == 1
    assert not list(folder.iterdir())


def test_the_folder_of_an_evaluation_must_be_writable(trained, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: pytest.fail("work began"))
    monkeypatch.setattr(os, "mkdir", refuse)
    assert main(["evaluate", str(trained), *QUIET]) == USAGE_STATUS
    assert capsys.readouterr().err.endswith(" (Permission denied).\n")


@pytest.mark.parametrize("line", ["--seed 1 maml maze", "maml --seed 1 maze", "maml maze --seed 1"])
def test_options_may_stand_before_between_and_after_the_names(line):
    _, options = parse(["train", *line.split()])
    assert (options.algorithm, options.tasks) == ("maml", "maze")


def test_an_unknown_option_is_named_with_its_nearest(capsys):
    assert main(["train", "--sead", "3"]) == USAGE_STATUS
    assert "got '--sead'. Did you mean '--seed'?" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["train", "--help"], ["train", "--seed", "-1", "--help"]])
def test_help_is_given(capsys, argv):
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: jaxmeta")
    assert err == ""


def test_without_a_verb_the_help_is_printed_with_status_0(capsys):
    assert main(["--help"]) == 0
    asked = capsys.readouterr().out
    assert main([]) == 0
    assert capsys.readouterr() == (asked, "")
    assert "The main job is `jaxmeta train`" in asked
    assert main([""]) == USAGE_STATUS
    assert capsys.readouterr().err.startswith("The command must be one of compare, evaluate, ")


@pytest.mark.slow
def test_a_reader_that_goes_early_ends_a_command_quietly(trained, folder, monkeypatch):
    shutil.copytree(trained, folder / "run")
    monkeypatch.setattr(evaluation, "evaluate", canned_evaluation)
    assert main(["evaluate", "run", *QUIET]) == 0
    for argv in (["list"], ["train", "--help"], ["compare", "run", "--json", "rows.json"]):
        reading, writing = os.pipe()
        os.close(reading)
        process = subprocess.run(
            [sys.executable, "-m", "jaxmeta.cli", *argv],
            env=subprocess_environment(folder),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writing)
        assert (process.returncode, process.stderr) == (PIPE_STATUS, ""), argv
    assert (folder / "rows.json").is_file()


def test_a_broken_pipe_of_anything_else_is_a_failure(trained, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(evaluation, "evaluate", fail)
    assert main(["evaluate", str(trained), *QUIET]) == FAILURE_STATUS
    assert "BrokenPipeError" in capsys.readouterr().err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_tells_defaults_that_are_values(capsys, verb):
    assert main([verb, "--help"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "default: None" not in out
    for option in cli.parser_of(verb)._actions:
        if isinstance(option.default, str) and option.default != argparse.SUPPRESS:
            assert f"(default: {option.default})" in out


def test_help_and_mistakes_need_no_source(capsys, monkeypatch):
    def no_source(_):
        raise OSError("no source")

    monkeypatch.setattr(inspect, "getsource", no_source)
    for verb in cli.VERBS:
        assert main([verb, "--help"]) == 0
    assert "of everything random" in capsys.readouterr().out
    assert main(["train", "--seed", "-1"]) == USAGE_STATUS


def test_every_verb_is_in_the_help_and_has_a_command(capsys):
    main(["--help"])
    out = capsys.readouterr().out
    assert all(verb in out for verb in cli.VERBS)
    assert set(commands.COMMANDS) == set(cli.VERBS)


def test_list_names_algorithms_and_tasks(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines]
    assert {"maml", "reptile", "grid_navi", "probe", *registry.available()} <= set(listed)
    assert all(len(line.split()) > 1 for line in lines if line.startswith(" "))


def test_list_shows_what_there_is_to_set(capsys):
    assert main(["list", "rl2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^cell +gru +gru, lstm +The kind of cell\.", out, re.MULTILINE)
    changed = re.search(r"^On bandit: (.*)$", out, re.MULTILINE)
    assert {"discount=1.0", "tasks_per_batch=1024"} <= set(changed[1].split())
    assert "stickiness" not in out, "which rl2 does not read"
    assert main(["list", "bandit"]) == 0
    assert re.search(r"^arms +5 +number of arms", capsys.readouterr().out, re.MULTILINE)
    assert main(["list", "rl2-maze"]) == 0
    out, figures = capsys.readouterr().out, pretrained.card("rl2-maze")["figures"]
    assert out.startswith("rl2 on maze")
    assert re.search(rf"^  score +{figures['score']:.2f} on 64 test tasks", out, re.MULTILINE)
    assert f"{figures['above_the_baseline_ci95'][0]:.2f} to" in out
    assert "jaxmeta evaluate rl2-maze" in out


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_list_shows_every_setting_of_an_algorithm(capsys, name):
    config = registry.find(name).config()
    paths = [path for path in paths_of(config) if path not in config.unread]
    assert main(["list", name]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:] if line[0] not in " O"]
    assert shown == [shortest(path, paths) for path in paths]


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_setting_has_a_line_that_tells_what_it_is(name):
    plain = registry.find(name).config()
    agents = records_of(kinds(type(plain))["agent"]) if hasattr(plain, "agent") else {}
    for config in (plain, *(replaced(plain, {"agent": agent}) for agent in agents)):
        reported = dict(catalogue._settings(config))
        assert [path for path in paths_of(config) if not reported[path][1]] in ([], ["agent"])


def test_settings_are_read_from_every_place():
    words = ["--set", "a=1", "b=x=y", "--set", "c=", "--agent", "dqn", "--meta-steps", "3", "--seeds", "0-2"]
    for named in (["train", "rl2", "maze", *words], ["train", *words, "--algorithm", "rl2", "--tasks", "maze"]):
        verb, options = parse(named)
        assert verb == "train"
        assert commands._configuration(options) == (
            ("rl2", "maze", {"a": "1", "b": "x=y", "c": "", "agent": "dqn"}),
            {"meta_steps": 3, "seeds": (0, 1, 2)},
        )


@pytest.mark.slow
@pytest.mark.optimised
def test_training_leaves_a_whole_run_directory(folder, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", canned_evaluation)
    assert main(["train", *TINY, "--meta-steps", "2", *QUIET]) == 0
    run_dir = folder / RUN_DIR
    assert sorted(path.name for path in run_dir.iterdir()) == [
        *(".lock", "adaptation.png", "checkpoints", "config.json", "evaluation.json"),
        *("metrics.jsonl", "tensorboard", "training.png"),
    ]
    out, err = capsys.readouterr()
    assert "round 1" in out
    assert "meta-step 2/2" in err

    config = json.loads((run_dir / "config.json").read_text())
    assert (config["algorithm"], config["tasks"], config["seed"], config["meta_steps"]) == ("maml", "probe", 0, 2)
    assert config["settings"]["agent"]["hidden"] == [4]
    assert {"jax", "flax", "optax", "gymnax", "orbax-checkpoint", "jaxmeta"} <= set(config["versions"])
    assert config["device"]["platform"]
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        assert {"meta_step", "env_steps", "seconds", "env_steps_per_second", "loss", "return"} <= set(json.loads(line))
    capsys.readouterr()

    again = folder / "again.json"
    assert main(["evaluate", RUN_DIR, "--split", "train", "--num-tasks", "5", "--json", str(again), *QUIET]) == 0
    assert json.loads(again.read_text()) == json.loads((run_dir / "evaluation.json").read_text())
    assert json.loads(again.read_text())["num_tasks"] == 5
    assert main(["compare", RUN_DIR, RUN_DIR, "--json", "rows.json"]) == 0
    rows = json.loads((folder / "rows.json").read_text())["rows"]
    assert {row["method"]: row["seeds"] for row in rows} == {"maml": 1, "scratch": 1, "random": 1}  # twice the same
    assert "maml" in capsys.readouterr().out


def test_inspect_tells_step_and_digest(trained, folder, capsys):
    assert main(["inspect", str(trained), "--json", "about.json", *QUIET]) == 0
    about = json.loads((folder / "about.json").read_text())
    assert about["meta_step"] == 4
    assert about["parameters"] > 0
    assert about["last_log_point"]["meta_step"] == 4
    out = capsys.readouterr().out
    assert about["state_digest"] in out
    assert "meta-step 4 of 4" in out


def test_a_damaged_checkpoint_is_told_in_one_sentence(trained, folder, capsys):
    copy = folder / "copy"
    shutil.copytree(trained, copy)
    (copy / "checkpoints" / "4" / "state" / "manifest.ocdbt").unlink()
    assert main(["inspect", str(copy), *QUIET]) == FAILURE_STATUS
    passed_over, none_left = capsys.readouterr().err.splitlines()
    assert passed_over.startswith("Checkpoint 4 in ")
    assert none_left.startswith("No checkpoint in ")


def test_a_resumed_run_remembers_whether_and_how_it_is_evaluated(folder, monkeypatch):
    asked = []

    def note(*arguments, **how):
        asked.append(how["with_baselines"])
        return canned_evaluation(*arguments, **how)

    monkeypatch.setattr(evaluation, "evaluate", note)
    train = ["train", *SCRATCH, *QUIET, "--run-dir", "run"]
    for more, wanted in (
        (["--meta-steps", "1", "--no-evaluate", "--no-baselines"], []),
        (["--meta-steps", "2", "--resume"], []),
        (["--meta-steps", "3", "--resume", "--evaluate"], [False]),
        (["--meta-steps", "4", "--resume", "--baselines"], [True]),
        (["--meta-steps", "4", "--resume"], [True]),
    ):
        assert main([*train, *more]) == 0
        assert asked == wanted, more
        asked.clear()
    for more, wanted in (([], [True]), (["--no-baselines"], [False])):
        assert main(["evaluate", "run", *QUIET, *more]) == 0
        assert asked == wanted, more
        asked.clear()


@pytest.mark.parametrize(("more", "wanted"), [([], False), (["--baselines"], True), (["--retune"], True)])
def test_baselines_of_a_pretrained_learner_are_measured_by_wish(monkeypatch, more, wanted):
    asked = []

    def note(*arguments, **how):
        asked.append((how["with_baselines"], how["retune"]))
        return canned_evaluation(*arguments, **how)

    monkeypatch.setattr(evaluation, "evaluate", note)
    assert main(["evaluate", "--pretrained", "rl2-maze", *QUIET, *more]) == 0
    assert asked == [(wanted, more == ["--retune"])]


def test_stages_are_told_with_what_is_done_and_left_and_where_time_went(trained, folder, capsys, monkeypatch):
    def staged(*arguments, on_stage, **how):
        for stage, done in (("adapting", 0.0), ("adapting", 0.25), ("tuning", 0.5), ("tuning", 1.0)):
            on_stage(stage, done)
        return canned_evaluation(*arguments, on_stage=on_stage, **how)

    monkeypatch.setattr(evaluation, "evaluate", staged)
    shutil.copytree(trained, folder / "copy")
    assert main(["evaluate", "copy", "--timings", *QUIET]) == 0
    err = capsys.readouterr().err
    assert [line for line in err.splitlines() if line.startswith("Evaluating")] == [
        "Evaluating: adapting  0% done",
        "Evaluating: tuning  50% done  0:00 left",
    ]
    assert {"preparing", "adapting", "tuning", "writing", "all"} <= {
        line.split()[0] for line in err.splitlines() if line
    }


def test_compare_asks_for_an_evaluation(trained, capsys):
    assert main(["compare", str(trained)]) == USAGE_STATUS
    assert "must hold an evaluation" in capsys.readouterr().err


def test_resuming_another_configuration_is_refused(trained, capsys):
    before = snapshot(trained)
    argv = ["train", "--run-dir", str(trained), "--resume", *QUIET]
    for extra, sentence in (
        (["--seed", "3"], "seed must be 0, as in the run that is resumed, got 3."),
        (["--set", "num_adaptations=2"], "adaptation.num_adaptations must be 1, as in the run that is resumed, got 2."),
        (["--meta-steps", "3"], "meta_steps must be at least 4, which the run has taken, got 3."),
    ):
        assert main([*argv, *extra]) == USAGE_STATUS
        assert capsys.readouterr().err == sentence + "\n"
    assert snapshot(trained) == before


def test_failures_are_one_sentence_with_status_1(trained, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(evaluation, "evaluate", fail)
    assert main(["evaluate", str(trained), *QUIET]) == FAILURE_STATUS
    err = capsys.readouterr().err
    assert re.fullmatch(r"RuntimeError: first line \(.*test_main\.py:\d+\)\.", err.splitlines()[-1])
    assert "Traceback" not in err
    assert main(["evaluate", str(trained), "--traceback", *QUIET]) == FAILURE_STATUS
    whole = capsys.readouterr().err
    assert "Traceback (most recent call last)" in whole
    assert whole.splitlines()[-1] == err.splitlines()[-1]


@pytest.mark.parametrize(
    "argv",
    [
        ["list", "mamml"],
        ["train", "--seed", "-1"],
        ["evaluate"],
        ["compare", "nowhere"],
        ["report", "nowhere", "--out", "page.html"],
        ["inspect", "--plan", "--set", "num_envs=0"],
    ],
)
def test_every_verb_shows_the_whole_traceback_of_a_mistake(folder, capsys, argv):
    assert main(argv) == USAGE_STATUS
    sentence = capsys.readouterr().err
    assert main([*argv, "--traceback"]) == USAGE_STATUS
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith(f"\n{sentence}")


def test_numbers_that_are_not_finite_fail_with_status_1(folder, capsys, monkeypatch):
    def diverge(job, hooks):
        raise NonFiniteError("loss became nan at meta-step 3.")

    monkeypatch.setattr(training, "run_job", diverge)
    assert main(["train", *TINY, *QUIET]) == FAILURE_STATUS
    assert capsys.readouterr().err.splitlines()[-1].startswith("loss became nan at meta-step 3")


def test_ctrl_c_anywhere_is_status_130(trained, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert main(["evaluate", str(trained), *QUIET]) == INTERRUPT_STATUS
    assert capsys.readouterr().err.splitlines()[-1] == "Interrupted."


def test_a_cache_that_cannot_be_written_is_not_used(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(compilation_cache, "_wanted", True)
    monkeypatch.setattr(compilation_cache, "_named", lambda: None)
    monkeypatch.setattr("jax.config.update", lambda *_: pytest.fail("the cache was turned on"))
    compilation_cache.enable()
    assert "Compiled programs are not kept" in caplog.text


def test_neither_help_nor_mistakes_import_jax(tmp_path):
    code = """
import sys
from jaxmeta.cli.main import main
assert main(["--help"]) == 0 and main(["train", "--help"]) == 0
assert main(["tran"]) == main(["train", "--seed", "-1"]) == main(["train", "--sead", "1"]) == 2
assert main(["inspect"]) == main(["inspect", "--plan", "a", "b", "c"]) == main(["inspect", "run", "--seed", "1"]) == 2
import jaxmeta
assert "train" in dir(jaxmeta) and jaxmeta.__version__
heavy = {"jax", "gymnax", "orbax", "numpy", "matplotlib", "flax"} & set(sys.modules)
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["jaxmeta", "unknown_name"])
def test_lazy_names(name):
    import jaxmeta

    for exported in jaxmeta.__all__:
        assert getattr(jaxmeta, exported) is not None
    with pytest.raises(AttributeError, match=name):
        getattr(jaxmeta, name)


@pytest.mark.slow
def test_sigterm_ends_a_run_with_a_checkpoint_to_resume_from(tmp_path):
    argv = [sys.executable, "-m", "jaxmeta.cli", "train", *SCRATCH, "--log-every", "50", "--no-evaluate"]
    environment = subprocess_environment(tmp_path)
    process = subprocess.Popen(
        [*argv, "--meta-steps", "10000000"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("meta-step 50/"):
                break
        process.terminate()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == INTERRUPT_STATUS, err
    assert err.splitlines()[-1].startswith("Interrupted at meta-step ")
    assert "Traceback" not in err
    run_dir = tmp_path / RUN_DIR.replace("maml", "scratch")
    checkpoint = max(int(path.name) for path in (run_dir / "checkpoints").iterdir())
    assert f"meta-step {checkpoint} of 10000000, and saved" in err.splitlines()[-1]
    assert list((tmp_path / "cache" / "jaxmeta" / "compiled").iterdir())

    resumed = subprocess.run(
        [*argv, "--resume", "--meta-steps", str(checkpoint + 50)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert f"meta-step {checkpoint + 50}/{checkpoint + 50}" in resumed.stderr
