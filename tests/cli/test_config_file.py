"""`--config`: a run's own `config.json`, or a short file written by hand."""

import json

import pytest

from jaxmeta.cli import commands, config_file
from jaxmeta.cli.main import USAGE_STATUS, main, parse
from jaxmeta.training import jobs
from jaxmeta.training.checkpoints import state_digest
from tests.learners import follower, quadratic, register

CONTENT = {
    "algorithm": "maml",
    "tasks": "bandit:arms=3",
    "seed": 3,
    "log_every": 2,
    "settings": {"num_adaptations": 2, "agent": {"type": "tabular_q", "epsilon": 0.5}, "inner.num_steps": 2},
}
YAML = """
algorithm: maml
tasks: bandit:arms=3
seed: 3
log_every: 2
settings:
  num_adaptations: 2
  agent: {type: tabular_q, epsilon: 0.5}
  inner.num_steps: 2
"""
TOML = """
algorithm = "maml"
tasks = "bandit:arms=3"
seed = 3
log_every = 2
[settings]
num_adaptations = 2
"inner.num_steps" = 2
[settings.agent]
type = "tabular_q"
epsilon = 0.5
"""
QUIET = ["--no-compilation-cache", "--no-evaluate"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job_of(*words):
    """What a command line asks for."""
    verb, options = parse(["inspect", "--plan", *words])
    assert verb == "inspect"
    arguments, given = commands._configuration(options)
    return jobs.prepare(*arguments, **given)


@pytest.mark.parametrize(
    ("name", "text"),
    [("run.json", json.dumps(CONTENT)), ("run.yaml", YAML), ("run.yml", YAML), ("run.toml", TOML)],
)
def test_a_file_says_what_is_trained(folder, name, text):
    (folder / name).write_text(text)
    assert config_file.read(folder / name) == CONTENT
    job = job_of("--config", name)
    config, settings = job.config, job.learner.config
    assert (config["algorithm"], config["tasks"]) == ("maml", "bandit:arms=3")
    assert (config["seed"], config["log_every"]) == (3, 2)
    assert (settings.adaptation.num_adaptations, settings.inner.num_steps, settings.agent.epsilon) == (2, 2, 0.5)
    assert config["settings"]["agent"]["type"] == "tabular_q"


def test_the_command_line_takes_precedence_over_a_file(folder):
    (folder / "run.yaml").write_text(YAML + "meta_steps: 5\n")
    options = ["--config", "run.yaml", "--seed", "4", "--meta-steps", "7", "--set", "adaptation.num_adaptations=3"]
    job = job_of("fomaml", "probe", *options, "epsilon=0.25")
    config, settings = job.config, job.learner.config
    assert (config["algorithm"], config["tasks"], config["seed"], config["meta_steps"]) == ("fomaml", "probe", 4, 7)
    assert (settings.adaptation.num_adaptations, settings.agent.epsilon, settings.inner.num_steps) == (3, 0.25, 2)
    assert config["log_every"] == 2, "which the command line does not say"
    job = job_of("--config", "run.yaml", "--agent", "dqn", "--set", "hidden=4")
    assert job.config["settings"]["agent"]["type"] == "dqn"
    assert (job.learner.config.agent.hidden, job.learner.config.agent.epsilon) == ((4,), 0.5)


def test_seeds_of_the_command_line_take_the_place_of_a_seed_and_the_other_way_round(folder):
    (folder / "one.yaml").write_text("{algorithm: scratch, tasks: probe, seed: 3}")
    (folder / "three.yaml").write_text("{algorithm: scratch, tasks: probe, seeds: [1, 2, 5]}")
    assert job_of("--config", "three.yaml").config["seeds"] == [1, 2, 5]
    assert job_of("--config", "one.yaml", "--seeds", "0-2").config["seeds"] == [0, 1, 2]
    single = job_of("--config", "three.yaml", "--seed", "4").config
    assert single["seed"] == 4
    assert "seeds" not in single


def test_whether_a_run_is_evaluated_is_read_from_a_file_too(folder, monkeypatch):
    register(monkeypatch, quadratic)
    (folder / "run.yaml").write_text("{algorithm: quadratic, tasks: probe, meta_steps: 2, evaluate: false}")
    assert main(["train", "--config", "run.yaml", "--run-dir", "run", "--no-compilation-cache"]) == 0
    config = json.loads((folder / "run" / "config.json").read_text())
    assert (config["evaluate"], config["baselines"]) == (False, True)
    assert not (folder / "run" / "evaluation.json").exists()


@pytest.mark.parametrize(
    "own",
    [["--set", "learning_rate=0.3", "--seed", "7"], ["--seeds", "0-1", "--sweep", "learning_rate=0.1,0.2"]],
    ids=["one", "several"],
)
def test_a_runs_own_configuration_trains_the_same_run(folder, monkeypatch, own):
    register(monkeypatch, follower)
    ways = ["--meta-steps", "6", "--log-every", "2", "--keep", "2", "--on-nonfinite", "skip", "--no-baselines"]
    assert main(["train", "follower", "probe", *own, *ways, "--run-dir", "first", *QUIET]) == 0
    assert main(["train", "--config", "first/config.json", "--run-dir", "again", "--no-compilation-cache"]) == 0
    first, again = (json.loads((folder / name / "config.json").read_text()) for name in ("first", "again"))
    assert again == first
    assert state_digest(jobs.restore("again")[1]) == state_digest(jobs.restore("first")[1])
    more = ["--meta-steps", "8", "--resume", "--run-dir", "again"]
    assert main(["train", "--config", "first/config.json", *more, *QUIET]) == 0
    assert jobs.restore("again")[1].steps_taken == 8


MISTAKES = {
    "text.txt": ("", "--config must end in .json, .yaml or .toml, got 'text.txt'."),
    "nowhere.json": (None, "--config must be a file, got 'nowhere.json'."),
    "x" * 300 + ".json": (None, "--config must be a possible path, got 'xxx"),
    "cut.json": ('{"seed": ', "--config must be JSON, got 'cut.json' ("),
    "cut.yaml": ("seeds: [0,\n", "--config must be YAML, got 'cut.yaml' ("),
    "cut.toml": ("seed = \n", "--config must be TOML, got 'cut.toml' ("),
    "bytes.json": (b"\xff", "--config must be JSON, got 'bytes.json' ("),
    "deep.json": ("[" * 20_000, "--config must be JSON, got 'deep.json' ("),
    "within_itself.yaml": ("settings: &a {b: *a}", "--config must be YAML, got 'within_itself.yaml' ("),
    "code.yaml": ("!!python/object/apply:os.getcwd []", "--config must be YAML, got 'code.yaml' ("),
    "nothing.yaml": ("", "--config must hold names with their values, got None."),
    "list.json": ("[1]", "--config must hold names with their values, got [1]."),
    "unknown.yaml": ("setings: {}", "--config unknown.yaml must be one of settings, "),
    "number.yaml": ("1: 2", "--config number.yaml must be one of "),
    "option.toml": ("run_dir = 'here'", "--config option.toml must be one of "),
    "none.yaml": (
        "settings:",
        "--config none.yaml settings must hold names with their values, got None.",
    ),
    "unknown_setting.yaml": (
        "settings: {rounds: 3}",
        "setting must be one that maml reads with agent 'dqn', got 'rounds'. Did you mean 'num_adaptations'?",
    ),
    "of_another.json": (
        '{"algorithm": "rl2", "settings": {"agent": {"type": "dqn"}}}',
        "setting must be one that rl2 reads, got 'agent",
    ),
    "value.json": ('{"settings": {"adaptation": {"num_envs": 0}}}', "adaptation.num_envs must be at least 1, got 0."),
    "text_for_a_number.yaml": ("settings: {num_envs: two}", "num_envs must be an integer, got 'two'."),
    "seed.yaml": ("seed: x", "seed must be an integer, got 'x'."),
    "both.yaml": ("{evaluate: 3}", "evaluate must be True or False, got 3."),
    "algorithm.toml": ("algorithm = 'mamal'", "algorithm must be one of "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_file_is_one_sentence(folder, capsys, name):
    content, sentence = MISTAKES[name]
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(path.name for path in folder.iterdir())
    assert main(["train", "--config", name, "--no-compilation-cache"]) == USAGE_STATUS
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_folder_is_no_file(folder, capsys):
    (folder / "run.json").mkdir()
    assert main(["train", "--config", "run.json", "--no-compilation-cache"]) == USAGE_STATUS
    assert capsys.readouterr().err == "--config must be a file, got 'run.json'.\n"
