"""Populations: each member is the run that its seed would be alone, and all of them are one run."""

import json

import jax
import numpy as np
import pytest

import jaxmeta
from jaxmeta.algorithms import registry
from jaxmeta.core.settings import traced_settings, with_values
from jaxmeta.core.types import Task, sample_tasks
from jaxmeta.training import checkpoints, chunks, jobs
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.jobs import NOTHING
from jaxmeta.training.run_directory import RunDirectory
from jaxmeta.training.seeds import Member
from tests import learners, tiers
from tests.conftest import tiny
from tests.learners import DIVERGED_AT, FollowerConfig, begun, follower, quadratic
from tests.records import interrupt_at, reported

SEEDS = (0, 3, 5)
RATES = {"learning_rate": [0.1, 0.3]}
DIVERGES = {"learning_rate": DIVERGED_AT}
SMALL = {
    "maml": ("grid_navi:size=3,horizon=4", tiny("maml")),
    "rl2": ("bandit:arms=2,pulls=4", {"memory.width": 8, "tasks_per_batch": 8, "epochs": 2, "minibatches": 2}),
    "quadratic": ("probe", {}),
}
"""By algorithm, tasks and settings."""


def forgetful(tasks, config: FollowerConfig = FollowerConfig()):
    """A learner whose step size is said to be traced, and that its meta does not hold."""
    return quadratic(tasks, config)


@pytest.fixture(autouse=True)
def _algorithms(monkeypatch):
    learners.register(monkeypatch, quadratic, follower, forgetful)


def train(algorithm="quadratic", tasks="probe", settings=NOTHING, on_log=lambda record: None, **options):
    hooks = jaxmeta.Hooks(on_log=on_log)
    return jaxmeta.train(algorithm, tasks, settings, hooks=hooks, **{"seeds": SEEDS, **options}).state


def differences(state, other):
    """How far apart two states are, leaf by leaf."""
    leaves, others = jax.tree.leaves(state), jax.tree.leaves(other)
    assert jax.tree.structure(state) == jax.tree.structure(other)
    return [
        np.max(np.abs(np.asarray(one, float) - np.asarray(its, float)), initial=0.0)
        for one, its in zip(leaves, others, strict=True)
    ]


def of_seed(config, seed):
    return multi_seed.config_of(config, Member(seed, {}))


@pytest.mark.parametrize("algorithm", ["maml", "quadratic", *tiers.slow("rl2")])
def test_members_begin_as_their_seeds_do_alone(algorithm):
    job = jobs.prepare(algorithm, *SMALL[algorithm], seeds=SEEDS)
    together = map(checkpoints.state_digest, multi_seed.members(begun(job, job.config)[0]))
    alone = [checkpoints.state_digest(begun(job, of_seed(job.config, seed))[0]) for seed in SEEDS]
    assert list(together) == alone
    assert len(set(alone)) == len(SEEDS)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", ["quadratic", *tiers.slow("maml", "rl2")])
def test_each_member_equals_its_seed_alone(algorithm):
    seeds, steps = SEEDS[:2], 3
    job = jobs.prepare(algorithm, *SMALL[algorithm], seeds=seeds)
    chunk = chunks.make_chunk(job.learner, job.tasks, steps)
    together, logs = chunk(*begun(job, job.config), np.int32(steps))
    for index, (seed, member) in enumerate(zip(seeds, multi_seed.members(together), strict=True)):
        alone, log = chunk(*begun(job, of_seed(job.config, seed)), np.int32(steps))
        assert max(differences(member, alone)) < 1e-9
        assert max(differences(logs.of_member(index), log)) < 1e-9
        assert member.steps_taken == steps
    assert max(differences(*multi_seed.members(together))) > 1e-3


def test_a_run_of_several_equals_the_runs_of_each():
    """From `train` to `train`, for a learner whose meta-step rounds alike however it is compiled."""
    together = multi_seed.members(train(meta_steps=7, log_every=3))
    alone = [train(seeds=None, seed=seed, meta_steps=7, log_every=3) for seed in SEEDS]
    for one, other in zip(together, alone, strict=True):
        assert max(differences(one, other)) < 1e-6
    (only,) = multi_seed.members(alone[0])
    assert checkpoints.state_digest(only) == checkpoints.state_digest(alone[0])


def test_it_is_one_program_traced_and_compiled_once(monkeypatch):
    assert learners.traced_and_compiled(monkeypatch, train) == (1, 2), "the chunk; the initial state, and the chunk"


def test_the_state_is_donated():
    job = jobs.prepare("quadratic", "probe", seeds=SEEDS)
    state, step_key = begun(job, job.config)
    chunks.make_chunk(job.learner, job.tasks, 2)(state, step_key, np.int32(2))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"algorithm": "follower", "seeds": SEEDS, "sweep": RATES, "meta_steps": 10, "log_every": 4}
    expected = train(run_dir=whole, **options)
    with pytest.raises(KeyboardInterrupt, match="Interrupted at meta-step 4 of 10, and saved"):
        train(run_dir=parts, on_log=interrupt_at(4), **options)
    resumed = jaxmeta.train(run_dir=parts, resume=True).state
    assert checkpoints.state_digest(resumed) == checkpoints.state_digest(expected)
    assert reported(parts) == reported(whole)
    assert RunDirectory(whole).load_config() == RunDirectory(parts).load_config()
    restored = jobs.restore(parts)[1]
    assert checkpoints.state_digest(restored) == checkpoints.state_digest(expected)
    assert len(multi_seed.members(restored)) == 6


def test_config_says_who_the_members_are(tmp_path):
    train("follower", seeds=(3, 1), sweep=RATES, run_dir=tmp_path / "both", meta_steps=1)
    train("follower", seeds=None, seed=4, sweep=RATES, run_dir=tmp_path / "swept", meta_steps=1)
    both, swept = (RunDirectory(tmp_path / name).load_config() for name in ("both", "swept"))
    assert (both["seed"], both["seeds"], both["sweep"]) == (3, [3, 1], RATES)
    assert (swept["seed"], swept["seeds"], swept["sweep"]) == (4, [4], RATES)
    assert [(member.seed, member.hyperparams["learning_rate"]) for member in multi_seed.members_of(both)] == [
        *((3, 0.1), (1, 0.1)),
        *((3, 0.3), (1, 0.3)),
    ]
    train(seeds=None, run_dir=tmp_path / "single", meta_steps=1)
    assert not {"seeds", "sweep"} & set(RunDirectory(tmp_path / "single").load_config())


def test_metrics_are_means_beside_what_each_member_has():
    records, alone = [], {seed: [] for seed in SEEDS}
    train(meta_steps=4, log_every=2, on_log=records.append)
    for seed, its in alone.items():
        train(seeds=None, seed=seed, meta_steps=4, log_every=2, on_log=its.append)
    for index, record in enumerate(records):
        for name in ("loss", "return"):
            each = [its[index][name] for its in alone.values()]
            np.testing.assert_allclose(record[f"{name}_by_member"], each, rtol=1e-5)
            assert record[name] == pytest.approx(np.mean(each), rel=1e-5)
        assert record["env_steps"] == alone[0][index]["env_steps"], "of each member"


def test_tensorboard_gets_the_means_alone(tmp_path, monkeypatch):
    from tensorboardX import summary

    reported, scalar = [], summary.scalar
    monkeypatch.setattr(summary, "scalar", lambda name, value: reported.append(name) or scalar(name, value))
    train(run_dir=tmp_path, meta_steps=2)
    assert "loss" in reported
    assert not [name for name in reported if name.endswith("_by_member")]
    assert len(RunDirectory(tmp_path).read_metrics()[0]["loss_by_member"]) == len(SEEDS)


def test_what_is_not_finite_is_named_with_its_member():
    with pytest.raises(jaxmeta.NonFiniteError, match=r"^return became nan at meta-step 8 of the member with seed 0\.$"):
        train(settings=DIVERGES, meta_steps=20, log_every=3)
    finite = np.array([[True, True], [True, False]])
    log = chunks.Log({"loss": np.zeros((2, 2), np.float32)}, finite, None)
    members = [Member(4, {"inner.learning_rate": 0.1}), Member(4, {"inner.learning_rate": 0.5})]
    named = r"not finite|finite at meta-step 7 of the member with seed 4, learning_rate 0\.5\.$"
    with pytest.raises(jaxmeta.NonFiniteError, match=named):
        chunks.summary(log, step=5, length=2, members=members)


def test_each_member_skips_its_own_meta_steps():
    values = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    log = chunks.Log({"loss": values}, np.isfinite(values), None)
    reported = chunks.summary(log, step=0, length=2, skip=True, members=[Member(0, {}), Member(1, {})])
    assert reported == {"loss": 2.0, "skipped": 1, "loss_by_member": [2.0, 2.0]}
    state = train(settings=DIVERGES, meta_steps=9, log_every=3, on_nonfinite="skip")
    assert np.all(np.isfinite(state.meta))
    assert state.step.tolist() == [9] * len(SEEDS)


def test_what_is_swept_is_the_run_with_that_setting():
    together = multi_seed.members(train("follower", seeds=SEEDS[:2], sweep=RATES, meta_steps=5))
    for member, (rate, seed) in zip(together, [(r, s) for r in (0.1, 0.3) for s in SEEDS[:2]], strict=True):
        alone = train("follower", settings={"learning_rate": rate}, seeds=None, seed=seed, meta_steps=5)
        assert max(differences(member, alone)) < 1e-6


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("algorithm", "path", "settings"),
    [
        ("maml", "inner.learning_rate", {}),
        ("maml", "inner.learning_rate", {"truncation_length": 1}),
        ("maml", "agent.target_step_size", {}),
        ("finetune", "inner.learning_rate", {}),
    ],
)
def test_what_is_swept_in_algorithms_is_the_run_with_that_setting(algorithm, path, settings):
    tasks, settings, values = SMALL["maml"][0], tiny(algorithm, settings), [0.1, 0.3]
    job = jobs.prepare(algorithm, tasks, settings, seed=1, sweep={path: values})
    chunk = chunks.make_chunk(job.learner, job.tasks, 2)
    together, _ = chunk(*begun(job, job.config), np.int32(2))
    one = multi_seed.members(together)[1]
    alone = jobs.prepare(algorithm, tasks, {**settings, path: values[1]}, seed=1)
    state, _ = chunks.make_chunk(alone.learner, alone.tasks, 2)(*begun(alone, alone.config), np.int32(2))
    assert max(differences(one, state)) < 1e-9


SOURCES = {"num_sources": 16, "bank_batch": 4, "num_updates": 1, "sources.num_steps": 2, "num_envs": 3}
OF_SOURCES = ("inner.learning_rate", "agent.epsilon", "agent.epsilon_decay")
"""What the sources of a map have values of their own for."""


def swept_in(algorithm):
    """What can be swept, by path."""
    paths = traced_settings(registry.find(algorithm).config()).values()
    return [path for path in paths if algorithm != "mapping" or path not in OF_SOURCES]


SWEPT = [algorithm for algorithm in registry.ALGORITHMS if swept_in(algorithm) and algorithm != "reptile"]


@pytest.mark.parametrize("algorithm", ["reptile", *tiers.slow(*SWEPT)])
def test_what_can_be_swept_sets_nothing_but_what_the_state_holds(algorithm):
    """A member is the very run that has its values: the same program, from the start that it would have alone."""
    tasks, value = jaxmeta.make_tasks(SMALL["maml"][0]), 0.25
    settings = {"target_step_size": 0.5} | (SOURCES if algorithm == "mapping" else {})
    first = registry.configure(algorithm, tasks, tiny(algorithm, settings))

    def composed(config):
        learner, key = registry.compose(algorithm, tasks, config), jax.random.key(0)
        start = jax.jit(learner.init)(key)
        env_params = jax.eval_shape(lambda: sample_tasks(key, tasks, "train", learner.tasks_per_batch))
        return jax.jit(learner.update).lower(key, start, Task(env_params, None)).as_text(), start

    program, start = composed(first)
    program_alone, start_alone = composed(with_values(first, dict.fromkeys(swept_in(algorithm), value)))
    values = {multi_seed.last_word(path): value for path in swept_in(algorithm)}
    assert program == program_alone
    assert max(differences(multi_seed.with_hyperparams(start, values), start_alone)) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seeds": (1,)}, "seeds must hold at least 2 seeds, got [1]."),
        ({"seeds": (1, 2, 1)}, "seeds must repeat nothing, got [1, 2, 1]."),
        ({"seeds": (1, -2)}, "seeds must be from 0 to 2147483647, got -2."),
        ({"seeds": (1, "2")}, "seeds must be an integer, got '2'."),
        ({"seeds": "12"}, "seeds must be a sequence of integers, got '12'."),
        ({"seed": 3}, "seed must be left out where seeds are given, got 3."),
        ({"seeds": range(2000)}, "seeds must make at most 1024 members with what is swept, got 2000."),
        ({"sweep": {}}, "sweep must name at least one hyper-parameter, got {}."),
        ({"sweep": RATES}, "sweep must name a traced hyper-parameter (none), for all other settings are static, got "),
        (
            {"algorithm": "maml", "sweep": {"num_adaptations": [1, 2]}},
            "sweep must name a traced hyper-parameter (discount, epsilon, epsilon_decay, learning_rate, ",
        ),
        (
            {"algorithm": "follower", "sweep": {"learning_rate": []}},
            "sweep learning_rate must hold at least one value, got [].",
        ),
        (
            {"algorithm": "follower", "sweep": {"learning_rate": [0.1, 0.1]}},
            "sweep learning_rate must repeat nothing, got [0.1, 0.1].",
        ),
        ({"algorithm": "maml", "sweep": {"discount": [0.9, 1.1]}}, "agent.discount must be at most 1, got 1.1."),
        (
            {"algorithm": "forgetful", "sweep": RATES},
            "sweep must name what the meta-parameters of forgetful hold, and they hold no hyper-parameters, got ",
        ),
        ({"resume": True}, "run_dir must be the folder of a run, with a config.json, got "),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(jaxmeta.UsageError) as raised:
        train(**{"run_dir": "run", **options})
    assert str(raised.value).startswith(sentence)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("algorithm", "sweep", "sentence"),
    [
        (
            "maml",
            {"target_step_size": [0.5, 1.0]},
            "sweep target_step_size must be 1 for all or for none, for at 1 no target parameters are kept, got [0.5, ",
        ),
        ("meta_sgd", {"inner.learning_rate": [0.3]}, "sweep must name a traced hyper-parameter (discount, epsilon, "),
        *(
            (
                "mapping",
                {path: [0.3]},
                f"sweep {path} must set nothing but a traced hyper-parameter, and in mapping more than that depends on",
            )
            for path in OF_SOURCES
        ),
    ],
)
def test_a_value_that_sets_more_than_a_traced_number_is_refused(algorithm, sweep, sentence):
    settings = tiny(algorithm, SOURCES if algorithm == "mapping" else {})
    with pytest.raises(jaxmeta.UsageError) as refused:
        jobs.prepare(algorithm, SMALL["maml"][0], settings, sweep=sweep)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({}, {"seeds": (0, 3)}, "seeds must be [0, 3, 5], as in the run that is resumed, got [0, 3]."),
        ({}, {"seed": 3}, "seed must be 0, as in the run that is resumed, got 3."),
        (
            {"algorithm": "follower"},
            {"sweep": RATES},
            "sweep must be None, as in the run that is resumed, got {'learning_rate': [0.1, 0.3]}.",
        ),
        ({"seeds": None}, {"seeds": (0, 1)}, "seeds must be None, as in the run that is resumed, got [0, 1]."),
    ],
)
def test_another_population_is_refused(tmp_path, first, second, sentence):
    train(run_dir=tmp_path, meta_steps=2, **first)
    with pytest.raises(jaxmeta.UsageError) as raised:
        jaxmeta.train(run_dir=tmp_path, resume=True, **second)
    assert str(raised.value) == sentence
    assert jaxmeta.train(run_dir=tmp_path, resume=True).state.steps_taken == 2


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seeds": [0, 0]}, "seeds must repeat nothing, got [0, 0]."),
        ({"seeds": [1, 0]}, "seed must be the first of seeds, 1, got 0."),
        ({"seeds": []}, "seeds must be a list of integers, got []."),
        ({"seeds": "0"}, "seeds must be a list of integers, got '0'."),
        ({"sweep": {"num_adaptations": [1]}}, "sweep must name a traced hyper-parameter"),
        ({"sweep": {"agent.epsilon": 1}}, "sweep 'agent.epsilon' must be a list of numbers, got 1."),
    ],
)
def test_a_population_in_a_file_is_checked(tmp_path, changed, sentence):
    train(run_dir=tmp_path, meta_steps=1)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    for open_run in (jobs.restore, lambda path: jaxmeta.train(run_dir=path, resume=True)):
        with pytest.raises(jaxmeta.UsageError) as raised:
            open_run(tmp_path)
        assert sentence in str(raised.value)


@pytest.mark.parametrize("text", ["", "x", "1,", "0-", "-1", "3-1", "0-99999999", "1 2", "٣", "0-3-5"])
def test_seeds_that_are_none_are_refused(text):
    with pytest.raises(jaxmeta.UsageError, match=r"^--seeds must "):
        multi_seed.parse_seeds(text)


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4,), (0, 3, 5), (2, 1), (1, 3, 2)])
def test_seeds_are_spelled_as_they_are_read(seeds):
    assert multi_seed.parse_seeds(multi_seed.spell_seeds(seeds)) == seeds


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_members_trained_by_policy_optimisation_do_not_stall():
    """Under default flags of XLA: elsewhere PPO, vmapped over seeds on a CPU, has stopped for good."""
    state = train("rl2", *SMALL["rl2"], seeds=range(4), meta_steps=200, log_every=50)
    assert state.step.tolist() == [200] * 4
