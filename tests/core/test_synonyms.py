"""What is offered in place of a name that there is not: the field's own words are understood."""

import pytest

from jaxmeta.algorithms import registry
from jaxmeta.cli import options as cli
from jaxmeta.cli.main import USAGE_STATUS, main
from jaxmeta.core import errors, synonyms
from jaxmeta.core.errors import UsageError, require_known
from jaxmeta.core.settings import paths_of, shortest

FLAGS = {flag for verb in cli.VERBS for flag in cli.parser_of(verb).flags()}
AGENTS = ("dqn", "tabular_q", "actor_critic")


def names_of(algorithm):
    """Settings by their shortest names, with whichever agent the algorithm has by itself."""
    config = registry.find(algorithm).config()
    known = [path for path in paths_of(config) if path not in config.unread]
    return {shortest(path, known) for path in known}


def every_name():
    """What settings of our algorithms end in, and their whole paths, with every agent."""
    configs = [registry.find(algorithm).config() for algorithm in registry.ALGORITHMS]
    configs += [registry.configure("maml", "probe", {"agent": agent}) for agent in AGENTS]
    paths = {path for config in configs for path in paths_of(config)}
    return paths | {path.rpartition(".")[2] for path in paths}


def refusal(name, value, known, **more):
    with pytest.raises(UsageError) as refused:
        require_known(name, value, known, **more)
    return str(refused.value)


def test_synonyms_stand_for_what_there_is():
    assert set(synonyms.SETTINGS) <= every_name()
    assert set(synonyms.OPTIONS) <= FLAGS
    for name, words in synonyms.SETTINGS.items():
        assert len(set(words.split())) == len(words.split())
        assert name not in words.split()


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr", ["inner.learning_rate", "outer.learning_rate"]),
        ("alpha", ["inner.learning_rate", "outer.learning_rate"]),
        ("outer_lr", ["outer.learning_rate"]),
        ("gamma", ["discount"]),
        ("eps", ["epsilon"]),
        ("num_tasks", ["tasks_per_batch"]),
        ("meta_batch_size", ["tasks_per_batch"]),
        ("rounds", ["num_adaptations"]),
        ("nstep", ["n_step"]),
        ("num_epochs", ["epochs"]),
        ("entropy_coef", ["entropy"]),
        ("hidden_size", ["hidden"]),
        ("max_grad_norm", ["inner.max_gradient_norm", "outer.max_gradient_norm"]),
        ("num_iterations", ["meta_steps"]),
    ],
)
def test_settings_are_found_by_the_words_of_the_field(capsys, word, meant):
    assert main(["train", "--set", f"{word}=1", "--no-compilation-cache"]) == USAGE_STATUS
    err = capsys.readouterr().err
    assert err.endswith(f"got {word!r}. Did you mean {' or '.join(map(repr, meant))}?\n")
    assert err.count("\n") == 1
    assert len(err) < 300


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        ("train --cfg x.json", ["--config"]),
        ("train --lr 0.1", ["--set inner.learning_rate=...", "--set outer.learning_rate=..."]),
        ("train --env-id maze", ["--tasks"]),
        ("train --algo=rl2", ["--algorithm"]),
        ("train --steps 5", ["--meta-steps", "--set rollout_length=..."]),
        ("train --epochs 5", ["--meta-steps", "--set epochs=..."]),
        ("train --inner-steps 5", ["--set num_steps=..."]),
        ("train --outer-learning-rat 5", ["--set outer.learning_rate=..."]),
        ("train --output-dir x", ["--run-dir"]),
        ("train --sead 5", ["--seed"]),
        ("inspect --plan --gamma 0.9", ["--set discount=..."]),
        ("evaluate run --episodes 5", ["--num-tasks"]),
        ("report run --html x", ["--out"]),
    ],
)
def test_options_are_found_by_the_words_of_the_field(capsys, argv, meant):
    argv = argv.split()
    out = ["--out", "page.html"] if argv[0] == "report" else []
    assert main([*argv, *out]) == USAGE_STATUS
    err = capsys.readouterr().err
    assert err.startswith(f"An option of jaxmeta {argv[0]} must be one of ")
    assert err.endswith(f"Did you mean {' or '.join(map(repr, meant))}?\n")


@pytest.mark.parametrize(("word", "flag"), [("seed", "--seed"), ("run_dir", "--run-dir"), ("tasks", "--tasks")])
def test_an_option_among_the_settings_is_named(capsys, word, flag):
    assert main(["train", "--set", f"{word}=1", "--no-compilation-cache"]) == USAGE_STATUS
    assert capsys.readouterr().err == f"--set must name a setting, got {word!r}. Did you mean {flag!r}?\n"


def test_a_refusal_lists_few_names_whole_and_of_many_the_nearest():
    few = [f"name_{index}" for index in range(errors.FEW)]
    assert refusal("it", "x", few) == f"it must be one of {', '.join(few)}, got 'x'."
    many = [*few, "another", "gadget"]
    reported = refusal("it", "name_7_", many, see="`show`")
    assert reported.startswith("it must be one of name_7, ")
    assert reported.endswith(" and 5 more (`show` shows all), got 'name_7_'. Did you mean 'name_7'?")
    assert reported.count(",") == errors.NEAREST
    assert refusal("it", "", many).endswith(" and 5 more, got ''.")
    assert " and 5 more (`jaxmeta list` shows all), got " in refusal("algorithm", "x", many)


def test_settings_are_shown_where_a_refusal_says(capsys):
    assert errors.SHOWN_BY["--set"] == "`jaxmeta list ALGORITHM`"
    for algorithm in registry.ALGORITHMS:
        assert main(["list", algorithm]) == 0
        lines = capsys.readouterr().out.splitlines()[2:]
        assert names_of(algorithm) <= {line.split()[0] for line in lines if not line.startswith(" ")}
