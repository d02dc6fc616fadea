import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxmeta.core.errors import UsageError
from jaxmeta_envs import splits

POINTS = 3000


@functools.cache
def points(split, dimension):
    keys = jax.random.split(jax.random.key(0), POINTS)
    return np.asarray(jax.jit(jax.vmap(lambda key: splits.draw(key, split, dimension)))(keys))


@pytest.mark.parametrize("split", splits.CLASSES)
@pytest.mark.parametrize("dimension", [1, 3])
def test_points_lie_in_the_cube_and_in_their_split(split, dimension):
    drawn = points(split, dimension)
    assert (drawn.shape, drawn.dtype) == ((POINTS, dimension), np.float32)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert set(np.asarray(jax.vmap(splits.classify)(drawn)).tolist()) == set(splits.CLASSES[split])


def test_the_splits_share_the_cells_without_overlap():
    classes = list(itertools.chain(*splits.CLASSES.values()))
    assert sorted(classes) == list(range(splits.CELLS))


@pytest.mark.parametrize("split", splits.CLASSES)
def test_marginals_are_uniform(split):
    for column in points(split, 3).T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("split", splits.CLASSES)
def test_a_split_fills_its_cells_evenly(split):
    cells = np.floor(points(split, 3) * splits.CELLS).astype(int)
    counts = np.bincount(cells @ [splits.CELLS**2, splits.CELLS, 1], minlength=splits.CELLS**3)
    filled = counts[counts > 0]
    assert len(filled) == splits.CELLS**2 * len(splits.CLASSES[split])
    assert scipy.stats.chisquare(filled).pvalue > 1e-3


def test_every_held_out_cell_has_only_train_cells_beside_it():
    cells = np.array(list(itertools.product(range(splits.CELLS), repeat=2)))
    names = {tuple(cell): splits.split_of(jnp.asarray((cell + 0.5) / splits.CELLS)) for cell in cells}
    assert set(names.values()) == set(splits.CLASSES)
    for x, y in (cell for cell, name in names.items() if name != "train"):
        for beside in [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]:
            assert names.get(beside, "train") == "train"


def test_points_keep_a_distance_from_the_border_of_their_cell():
    offsets = points("train", 3) * splits.CELLS % 1
    assert offsets.min() > splits.MARGIN / 2
    assert offsets.max() < 1 - splits.MARGIN / 2


def test_different_keys_draw_different_points():
    assert len(np.unique(points("test", 3), axis=0)) == POINTS


def test_unknown_split_is_refused():
    with pytest.raises(UsageError, match=r"split must be one of test, train, validation, got 'shifted'\."):
        splits.draw(jax.random.key(0), "shifted", 2)
