"""Evaluation: scales, intervals, costs and comparison."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.spaces import Box
from scipy import stats

from jaxmeta.algorithms.baselines import FinetuneConfig
from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.core import costs
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.tasks import make_tasks
from jaxmeta.core.types import MetaLearner, MetaState, sample_tasks
from jaxmeta.evaluation import baselines, statistics, tuned_baselines
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation.measurement import Measured, Meter, adaptation_cost, measure
from jaxmeta.inner import privileged_task, random_policy
from jaxmeta.rl import ActorCriticConfig, DQNConfig
from jaxmeta_envs.grid_navi.bayes import bayes_optimal_return
from tests import tiers
from tests.boards import rows_of
from tests.conftest import TINY


@pytest.fixture(scope="module")
def report(grid):
    learner = make_learner("maml", grid, TINY)
    return evaluation.evaluate(learner, learner.init(jax.random.key(0)), grid, num_tasks=6, with_baselines=False)


@pytest.fixture(scope="module")
def standard(grid):
    """What the baselines beside that learner start from."""
    return baselines.standard_config(configure("maml", grid, TINY), grid)


def test_report_has_the_fields_of_the_contract(report):
    fields = {"split", "tasks_seen", "num_tasks", "returns", "returns_ci95", "trial_return", "trial_return_se", "score"}
    fields |= {"score_mean", "ci95", "baselines", "env_steps", "steps_to_threshold", "generalisation_gap", "flops"}
    assert fields | {"seconds"} <= set(report)
    assert len(report["returns"]) == TINY["num_adaptations"] + 1
    assert report["env_steps"] == TINY["num_adaptations"] * TINY["num_envs"] * TINY["rollout_length"]
    shared = {"returns", "returns_ci95", "trial_return", "score", "score_mean", "ci95", "env_steps"}
    assert all(shared <= set(entry) for entry in report["baselines"].values())


@pytest.mark.parametrize("algorithm", ["maml", *tiers.slow("rl2")])
def test_the_cost_of_adapting_is_that_of_a_program_which_lives(grid, algorithm):
    settings = {name: TINY[name] for name in ("num_envs", "rollout_length", "num_adaptations")}
    learner = make_learner(algorithm, grid, settings)
    meta = learner.meta(learner.init(jax.random.key(0)))
    cost = adaptation_cost(jax.random.key(1), learner, meta, grid)
    assert cost["memory"] > 0, "of a program from which everything was left out it would be 0"
    assert min(cost["flops"], cost["seconds"]) > 0


def test_random_scores_zero_and_the_oracle_one(report):
    assert report["baselines"]["random"]["score"] == pytest.approx(0.0, abs=0.1)
    assert report["baselines"]["oracle"]["score"] == pytest.approx(1.0)
    assert report["baselines"]["oracle"]["steps_to_threshold"] == 0


def drawn_at_random(tasks, env_params, draws=2000):
    """Actions of `random_policy` in one task, [draws, ...]."""
    policy = random_policy(tasks)
    fast, memory = policy.reset(jax.random.key(0), None, privileged_task(jax.random.key(0), env_params).context)
    keys = jax.random.split(jax.random.key(1), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: policy.act(key, None, fast, memory, None)[0]))(keys))


def test_random_actions_are_uniform_over_what_there_is(grid):
    counts = np.bincount(drawn_at_random(grid, grid.sample(jax.random.key(0), "test")), minlength=5)
    assert stats.chisquare(counts).pvalue > 1e-3
    pendulum = make_tasks("pendulum:torques=0")
    torques = drawn_at_random(pendulum, pendulum.sample(jax.random.key(0), "test"))
    assert torques.shape == (2000, 1)
    assert stats.kstest(torques[:, 0], stats.uniform(-2, 4).cdf).pvalue > 1e-3


def test_random_actions_keep_to_the_bounds_of_their_own_task():
    robots = make_tasks("gymnax:id=PointRobot-misc,vary=max_force@0.05@0.2")
    for seed in range(3):
        env_params = robots.sample(jax.random.key(seed), "test")
        largest, bound = np.abs(drawn_at_random(robots, env_params)).max(), float(env_params.max_force)
        assert 0.99 * bound < largest <= bound


@pytest.mark.parametrize("bound", [jnp.inf, jnp.finfo(jnp.float32).max])
def test_no_action_is_drawn_from_an_unbounded_space(bound):
    tasks = make_tasks("point_navigation")

    class Boundless(type(tasks.env)):
        def action_space(self, params=None):
            return Box(-bound, bound, (2,), jnp.float32)

    with pytest.raises(UsageError, match="random_policy must be given a bounded action space, got that of point_nav"):
        random_policy(tasks._replace(env=Boundless()))


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["pendulum:torques=0,horizon=5", "point_navigation:horizon=5"])
def test_learners_of_continuous_actions_are_evaluated(spec):
    tasks = make_tasks(spec)
    lifetime = AdaptationConfig(num_envs=2, rollout_length=5, num_adaptations=2)
    learner = MetaLearner(
        init=lambda key: MetaState(None, None, jnp.zeros((), jnp.int32), None),
        update=lambda key, state, env_params: (state, {}),
        task=privileged_task,
        adapter=random_policy(tasks),
        meta=lambda state: state.meta,
        lifetime=lifetime,
        tasks_per_batch=4,
        env_steps_per_task=0,
        name="guess",
    )
    report = evaluation.evaluate(learner, learner.init(jax.random.key(0)), tasks, num_tasks=4, with_baselines=False)
    random = report["baselines"]["random"]
    assert report["algorithm"] == "guess"
    assert np.all(np.isfinite([*report["returns"], *random["returns"], random["trial_return"]]))
    assert random["trial_return"] < 0


@pytest.mark.slow
def test_what_acts_well_in_a_family_is_measured_beside_the_learner(grid):
    learner = make_learner("rl2", grid, {"num_adaptations": 2, "memory.width": 4})
    report = evaluation.evaluate(learner, learner.init(jax.random.key(0)), grid, num_tasks=64, with_baselines=False)
    assert report["agent"] == "memory", "in place of an agent, which it has none of"
    best = report["baselines"]["bayes_oracle"]
    assert abs(best["trial_return"] - bayes_optimal_return(3, 4, 2)) < 4 * best["trial_return_se"]
    assert best["trial_return"] > report["trial_return"]


def test_score_is_the_position_between_random_and_oracle():
    scale = evaluation.Scale(random=np.array([0.0, 1.0]), oracle=np.array([10.0, 3.0]))
    measured = Measured(np.array([[0.0, 5.0], [0.0, 2.0]]), np.zeros(2))
    np.testing.assert_allclose(scale.scores(measured), [0.5, 0.5])
    assert evaluation.Scale(np.zeros(2), None).scores(measured) is None
    assert evaluation.Scale(np.ones(2), np.ones(2)).scores(measured) is None


def test_interquartile_mean_drops_the_outer_quarters():
    scores = np.array([[-100.0, 1.0], [2.0, 100.0]])
    assert statistics.interquartile_mean(scores) == 1.5


def test_bootstrap_interval_agrees_with_scipy_and_covers_seeds():
    scores = np.random.default_rng(0).normal(size=(1, 60))
    ours = statistics.bootstrap_interval(scores, trim=0)
    theirs = stats.bootstrap((scores[0],), np.mean, method="percentile", rng=np.random.default_rng(1))
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.05)
    apart = np.repeat([[0.0], [1.0], [2.0]], 50, axis=1)
    low, high = statistics.bootstrap_interval(apart, trim=0)
    assert low < 0.4
    assert high > 1.6


def test_tasks_that_all_seeds_share_are_resampled_together(monkeypatch):
    """Else five seeds in the same tasks would count as five times as many tasks, and two in three intervals hold."""
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(400, 1, 24)) + 0.1 * rng.normal(size=(400, 5, 24))
    intervals = np.array([statistics.bootstrap_interval(scores, trim=0) for scores in drawn])
    assert np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)) > 0.9
    own = np.array([statistics.bootstrap_interval(scores, trim=0, same_tasks=False) for scores in drawn])
    assert np.mean((own[:, 0] <= 0) & (own[:, 1] >= 0)) < 0.8


def test_flops_count_loops_and_gradients():
    matrix = jnp.ones((8, 8))

    def loop(x):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(matrix @ carry), None), x, None, length=5)[0]

    assert costs.flops(loop, matrix) == 5 * 2 * 8**3
    assert costs.flops(jax.jit(loop), matrix) == 5 * 2 * 8**3
    assert costs.flops(jax.grad(lambda x: loop(x).sum()), matrix) >= 2 * 5 * 2 * 8**3


def test_the_same_seed_gives_the_same_returns_and_another_seed_others(grid):
    learner = make_learner("maml", grid, TINY)
    meta = learner.init(jax.random.key(0)).meta
    env_params = sample_tasks(jax.random.key(1), grid, "test", 6)
    run = jax.jit(lambda key: measure(key, learner, meta, grid, env_params).trial)
    np.testing.assert_array_equal(run(jax.random.key(2)), run(jax.random.key(2)))
    assert np.any(run(jax.random.key(2)) != run(jax.random.key(3)))


def reported(**changes):
    usual = {"learning_rate": 3e-3, "epsilon": 0.3, "temperature": 0.0, "num_steps": 5, "n_step": 1}
    return baselines.Choice(**usual | changes)


@pytest.mark.slow
def test_baselines_adapt_as_they_are_told(grid, standard):
    key, env_params = jax.random.key(0), sample_tasks(jax.random.key(1), grid, "test", 32)

    def measured(choices, **options):
        meter = Meter(tuned_baselines.parts_of_work(standard), lambda stage, done: stages.append(stage))
        config = configure("maml", grid, TINY)
        those = tuned_baselines.Baselines(key, grid, config, pretraining_steps=1, seed=0, meter=meter)
        return tuned_baselines.measure_baselines(those, key, env_params, choices=choices, **options)

    stages = []
    still = measured({"scratch": reported(learning_rate=0.0), "finetune": reported(learning_rate=0.0)}, starts=2)
    assert stages
    assert not any("tuning" in stage for stage in stages)
    busy = measured({"scratch": reported(learning_rate=0.1), "finetune": reported(learning_rate=0.0)})
    assert np.any(busy["scratch"][0][0].trial != still["scratch"][0][0].trial)
    np.testing.assert_array_equal(busy["finetune"][0][0].returns, still["finetune"][0][0].returns)
    assert still["scratch"][0][0].returns.shape == (32, TINY["num_adaptations"] + 1)
    for entries, _ in still.values():
        assert len(entries) == 2
        assert np.any(entries[0].trial != entries[1].trial), "each start is its own"
    assert still["finetune"][1] == baselines.Tried(
        reported(learning_rate=0.0), baselines.grid_of(standard), None, "given"
    )


def test_scratch_starts_anew_in_every_task(grid, standard):
    starts = baselines.fresh_starts(grid, standard)(jax.random.key(0), 3)
    kernel = starts["network"]["params"]["torso_0"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


GRID = baselines.grid_of(FinetuneConfig(agent=DQNConfig(temperature=0.2)))


@pytest.mark.parametrize(
    ("num_adaptations", "ladder"), [(3, (10, 30, 100, 300, 1000)), (20, (10, 30, 100)), (1000, (10,))]
)
def test_long_lifetimes_learn_less_in_every_adaptation(num_adaptations, ladder):
    adaptation = AdaptationConfig(num_adaptations=num_adaptations)
    config = FinetuneConfig(adaptation=adaptation, agent=DQNConfig(temperature=0.0))
    assert baselines.grid_of(config).num_steps == ladder


def test_the_edge_of_a_grid_is_reported():
    assert not reported(num_steps=100).on_edge(GRID)
    assert reported(learning_rate=1e-4, num_steps=100).on_edge(GRID)
    assert reported(num_steps=1000).on_edge(GRID)


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (reported(learning_rate=1e-2, epsilon=1.0, num_steps=30, n_step=0), {100, 300, 30, 10}),
        (reported(learning_rate=3e-4, epsilon=0.3, temperature=0.2, num_steps=1000, n_step=1), {100, 300, 1000}),
        (reported(learning_rate=3e-3, epsilon=1.0, num_steps=100, n_step=1), {100, 300, 30}),
    ],
)
def test_tuning_finds_the_best_of_a_hill(grid, best, tried):
    """On returns that fall off on every side of a known choice."""
    asked = set()

    def programs(num_steps, n_step):
        asked.add(num_steps)

        def program(key, params, learning_rates, epsilon, temperature, env_params):
            distance = np.abs(np.log(learning_rates) - np.log(best.learning_rate)) + abs(epsilon - best.epsilon)
            distance += abs(temperature - best.temperature)
            distance += abs(np.log(num_steps) - np.log(best.num_steps)) + abs(n_step - best.n_step)
            returns = np.broadcast_to(-distance[:, None, None], (len(learning_rates), 32, 2))
            return Measured(returns, returns[..., 0])

        return program

    found = baselines.tune(jax.random.key(0), grid, programs, lambda key, count: None, GRID)
    assert found.choice == best
    assert found.validation_return == pytest.approx(0.0, abs=1e-5)
    assert asked == tried


def test_baselines_are_tuned_on_validation_tasks_and_trained_on_training_tasks(grid, standard):
    drawn = []
    watched = grid._replace(sample=lambda key, split: drawn.append(split) or grid.sample(key, split))

    def program(key, params, learning_rates, epsilon, temperature, env_params):
        return Measured(np.zeros((len(learning_rates), 32, 2)), np.zeros((len(learning_rates), 32)))

    baselines.tune(jax.random.key(0), watched, lambda *_: program, lambda key, count: None, GRID)
    assert set(drawn) == {"validation"}
    drawn.clear()
    jax.eval_shape(baselines.make_pretraining(watched, standard, 1), jax.random.key(0))
    assert set(drawn) == {"train"}


def test_tuning_tries_the_other_targets_again(grid):
    """Where one-step targets win under few gradient steps, and Monte-Carlo targets under many."""

    def programs(num_steps, n_step):
        def program(key, params, learning_rates, epsilon, temperature, env_params):
            worth = (1.0 if n_step == 1 else 0.5) if num_steps <= 100 else (2.0 if n_step == 1 else 3.0)
            returns = np.full((len(learning_rates), 32, 2), worth + (num_steps == 300))
            return Measured(returns, returns[..., 0])

        return program

    found = baselines.tune(jax.random.key(0), grid, programs, lambda key, count: None, GRID)
    assert (found.choice.num_steps, found.choice.n_step, found.validation_return) == (300, 0, 4.0)


def test_of_a_policy_only_how_long_it_learns_is_tuned():
    """Targets, exploration rates and temperatures of action values are none of its concern."""
    grid = baselines.grid_of(FinetuneConfig(agent=ActorCriticConfig()))
    assert [len(values) for values in grid] == [1, 1, 1, 5]

    def programs(num_steps, n_step):
        def program(key, params, learning_rates, epsilon, temperature, env_params):
            returns = np.broadcast_to((num_steps == 30) - learning_rates[:, None, None], (len(learning_rates), 32, 2))
            return Measured(returns, returns[..., 0])

        return program

    found = baselines.tune(jax.random.key(0), make_tasks("probe"), programs, lambda key, count: None, grid)
    assert (found.choice.num_steps, found.choice.learning_rate) == (30, baselines.LEARNING_RATES[0])


@pytest.mark.slow
def test_a_policy_over_continuous_actions_is_evaluated_beside_its_baselines():
    distribution = make_tasks("point_navigation:horizon=5")
    settings = {"num_envs": 2, "num_adaptations": 1, "tasks_per_batch": 2, "num_query_envs": 2, "hidden": (4,)}
    learner = make_learner("maml", distribution, settings)
    assert isinstance(learner.config.agent, ActorCriticConfig)
    state = learner.init(jax.random.key(0)).replace(step=jnp.ones((), jnp.int32))
    choices = dict.fromkeys(("scratch", "finetune"), reported(num_steps=1))
    report = evaluation.evaluate(learner, state, distribution, num_tasks=3, choices=choices)
    assert set(report["baselines"]) == {"random", "oracle", "scratch", "finetune"}
    assert all(np.all(np.isfinite(entry["returns"])) for entry in report["baselines"].values())
    assert len(report["returns"]) == 2


def test_compare_pools_seeds_and_ranks(report):
    better = {**report, "train_seed": 1, "task_scores": [0.9] * 6}
    rows = rows_of(report, better)
    names = [row["method"] for row in rows]
    row = rows[names.index("maml")]
    assert row["seeds"] == 2
    both = np.array([report["task_scores"], better["task_scores"]])
    assert row["score"] == pytest.approx(statistics.interquartile_mean(both), rel=1e-4)
    assert names[0] == "maml"
    assert names.index("oracle") < names.index("random")


def test_compare_pools_no_runs_of_unlike_lifetimes(report):
    longer = [{**entry, "returns": [*entry["returns"], 0.0]} for entry in (report, *report["baselines"].values())]
    longer = {**longer[0], "baselines": dict(zip(report["baselines"], longer[1:], strict=True)), "train_seed": 1}
    assert {row["seeds"] for row in rows_of(report, longer)} == {1}
    fewer = {**report, "train_seed": 1, "task_scores": [0.9]}
    assert {row["name"] for row in rows_of(report, fewer) if row["method"] == "maml"} == {
        *(f"maml tasks={len(own['task_scores'])}" for own in (report, fewer))
    }


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"num_tasks": 1}, "num_tasks must be at least 2, got 1"),
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_bad_requests_are_refused(grid, how, named):
    learner = make_learner("maml", grid, TINY)
    with pytest.raises(UsageError, match=named.replace("(", r"\(")):
        evaluation.evaluate(learner, learner.init(jax.random.key(0)), grid, **how)
