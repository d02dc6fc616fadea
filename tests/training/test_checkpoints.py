"""Checkpoints: what comes back is what went in, or it does not come back."""

import functools
import json
import logging
import resource

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.core.types import MetaState
from jaxmeta.training import checkpoints


def make_state(step=5, scale=1.0):
    """Everything a state may hold: nested containers, typed keys, empty arrays, small dtypes, nothing at all."""
    params = {"params": {"a/b": scale * jnp.arange(600.0).reshape(20, 30), "bias": jnp.zeros(3, jnp.bfloat16)}}
    return MetaState(
        meta=params,
        optimizer=optax.adam(1e-3).init(params),
        step=jnp.int32(step),
        aux_state={"key": jax.random.key(3), "empty": jnp.zeros((0, 4)), "none": None, "flag": jnp.array(True)},
    )


def save(folder, state, score=None):
    """Writes one checkpoint to the end."""
    with checkpoints.Keeper(folder) as keeper:
        save_through(keeper, state, score)


def save_through(keeper, state, score=None):
    keeper.save(state, score)
    keeper.settle(wait=True)


def like(state):
    return jax.eval_shape(lambda: state)


def damage(folder, step):
    """Flips a bit in the middle of the largest file of array data."""
    largest = max((folder / str(step) / "state").glob("**/d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def test_a_state_comes_back_to_the_bit(tmp_path):
    state = make_state()
    save(tmp_path / "checkpoints", state)
    restored = checkpoints.restore(tmp_path / "checkpoints", like(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert checkpoints.state_digest(restored) == checkpoints.state_digest(state)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), restored) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    np.testing.assert_array_equal(
        jax.random.key_data(restored.aux_state["key"]), jax.random.key_data(jax.random.key(3))
    )


@pytest.mark.parametrize(
    "other",
    [
        make_state(step=6),
        make_state(scale=1.0 + 1e-6),
        make_state().replace(aux_state={}),
        make_state().replace(step=jnp.float32(5)),
        make_state().replace(step=jnp.full((1,), 5, jnp.int32)),
    ],
    ids=["value", "last bits", "structure", "dtype", "shape"],
)
def test_the_digest_sees_every_difference(other):
    assert checkpoints.state_digest(other) != checkpoints.state_digest(make_state())


def test_the_digest_is_a_sha256_that_stays_the_same():
    digest = checkpoints.state_digest({"w": np.zeros(2, np.float32)})
    assert digest == checkpoints.state_digest({"w": jnp.zeros(2)})
    assert len(digest) == 64


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoints.restore(tmp_path / "checkpoints", like(make_state())) is None
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_reported_and_passed_over(tmp_path, caplog):
    for step in (1, 2, 3):
        save(tmp_path, make_state(step))
    damage(tmp_path, 3)
    (tmp_path / "2" / "state" / "manifest.ocdbt").unlink()
    with caplog.at_level(logging.WARNING, "jaxmeta"):
        restored = checkpoints.restore(tmp_path, like(make_state()))
    assert int(restored.step) == 1
    reported = [record.getMessage() for record in caplog.records if record.name.startswith("jaxmeta")]
    assert reported[0].startswith("Checkpoint 3 in ")
    assert reported[0].endswith(" is damaged.")
    assert reported[1].startswith("Checkpoint 2 in ")
    assert reported[1].endswith("state/manifest.ocdbt is missing.")
    assert checkpoints.finished_steps(tmp_path) == [1, 2, 3]


def test_one_checkpoint_is_read_or_says_what_is_wrong(tmp_path):
    for step in (1, 2):
        save(tmp_path, make_state(step))
    (tmp_path / "2" / "state" / "manifest.ocdbt").unlink()
    assert int(checkpoints.read(tmp_path, 1, like(make_state())).step) == 1
    with pytest.raises(checkpoints.CheckpointError, match=r"^state/manifest\.ocdbt is missing$"):
        checkpoints.read(tmp_path, 2, like(make_state()))


def test_a_save_killed_before_it_listed_its_files_still_verifies(tmp_path):
    save(tmp_path, make_state(1))
    (tmp_path / "1" / checkpoints.FILES).unlink()
    assert int(checkpoints.restore(tmp_path, like(make_state())).step) == 1


def test_values_that_differ_from_their_digest_are_not_believed(tmp_path):
    save(tmp_path, make_state(1))
    (tmp_path / "1" / checkpoints.FILES).unlink()
    metadata = tmp_path / "1" / "meta" / "metadata"
    metadata.write_text(json.dumps({"step": 1, "digest": "0" * 64}))
    with pytest.raises(checkpoints.CheckpointError, match=r"all of \[1\] are damaged"):
        checkpoints.restore(tmp_path, like(make_state()))


def test_a_state_of_another_shape_is_not_believed(tmp_path):
    save(tmp_path, make_state(1))
    other = make_state(1).replace(meta={"params": {"a/b": jnp.zeros((30, 20)), "bias": jnp.zeros(3, jnp.bfloat16)}})
    with pytest.raises(checkpoints.CheckpointError):
        checkpoints.restore(tmp_path, like(other))


def test_a_folder_that_is_no_checkpoint_is_passed_over(tmp_path):
    save(tmp_path, make_state(1))
    (tmp_path / "7").mkdir()
    assert int(checkpoints.restore(tmp_path, like(make_state())).step) == 1


def test_the_same_step_is_never_saved_twice_in_silence(tmp_path):
    save(tmp_path, make_state(1))
    with pytest.raises(checkpoints.CheckpointError, match="it is there already"):
        save(tmp_path, make_state(1))


def test_set_aside_makes_room_and_deletes_nothing(tmp_path):
    folder = tmp_path / "checkpoints"
    for _ in range(2):
        for step in (1, 2):
            if step not in checkpoints.finished_steps(folder):
                save(folder, make_state(step))
        checkpoints.set_aside(folder, newer_than=1)
    assert checkpoints.finished_steps(folder) == [1]
    assert sorted(path.name for path in (tmp_path / "checkpoints-damaged").iterdir()) == ["2", "2-again"]


def test_the_newest_and_the_best_stay(tmp_path):
    for scores in ([0.1, 0.9, 0.3], [0.2, None, 0.5, 0.4]):  # the second as if the run had been resumed
        with checkpoints.Keeper(tmp_path) as keeper:
            for score in scores:
                keeper.save(make_state(1 + max(checkpoints.finished_steps(tmp_path), default=0)), score)
                keeper.settle(wait=True)
    assert checkpoints.finished_steps(tmp_path) == [2, 5, 6, 7]
    assert int(checkpoints.restore(tmp_path, like(make_state()), best=True).step) == 2
    assert int(checkpoints.restore(tmp_path, like(make_state())).step) == 7


def test_the_second_best_takes_the_place_of_a_damaged_best(tmp_path, caplog):
    for step, score in ((1, 0.3), (2, 0.9), (3, None)):
        save(tmp_path, make_state(step), score)
    damage(tmp_path, 2)
    with caplog.at_level(logging.WARNING, "jaxmeta"):
        assert int(checkpoints.restore(tmp_path, like(make_state()), best=True).step) == 1
    assert "Checkpoint 2" in caplog.text


def test_what_is_saved_in_the_background_may_be_donated_at_once(tmp_path):
    @functools.partial(jax.jit, donate_argnums=0)
    def scribble(state):
        return jax.tree.map(lambda leaf: leaf + 1, state)

    large = {"w": jnp.arange(2_000_000.0)}
    state = MetaState(meta=large, optimizer=None, step=jnp.int32(1), aux_state=None)
    digest = checkpoints.state_digest(state)
    with checkpoints.Keeper(tmp_path) as keeper:
        keeper.save(state)
        for _ in range(3):
            state = scribble(state)
    assert checkpoints.state_digest(checkpoints.restore(tmp_path, like(state))) == digest


def test_a_save_that_fails_leaves_the_last_good_one_and_the_next_succeeds(tmp_path):
    with checkpoints.Keeper(tmp_path) as keeper:
        keeper.save(make_state(1))
        keeper.settle(wait=True)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))  # no file may grow beyond that, as on a full disk
        try:
            with pytest.raises(checkpoints.CheckpointError, match=r"^Checkpoint 2 in .* could not be written: "):
                save_through(keeper, make_state(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert int(checkpoints.restore(tmp_path, like(make_state())).step) == 1
        keeper.save(make_state(3))
        keeper.settle(wait=True)
    assert checkpoints.finished_steps(tmp_path) == [1, 3]
    assert int(checkpoints.restore(tmp_path, like(make_state())).step) == 3
