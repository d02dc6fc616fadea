"""Classical policies for `recommender`, run and evaluated like every learner.

Of the family they know the catalogue, how interest fades, and how users are distributed. They learn nothing across
tasks. Every environment has a memory of its own, and nothing is passed from one to another.

Reference: Li, Chu, Langford and Schapire (2010), LinUCB, arXiv 1003.0146.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import require
from jaxmeta.core.types import Adapter, Key, Percept, PyTree
from jaxmeta.inner import without_learning
from jaxmeta_envs.recommender.model import STRENGTH, Catalogue, best_session, interest


def popularity_policy(catalogue: Catalogue, session: int, window: int) -> Adapter:
    """Shows everybody the session that is best on average over all users; meta, fast and memory are None.

    What a user clicks on changes nothing, so the best session for chances that are averages over users is the best of
    all that are fixed beforehand. With drift the average is the same at every step, for the preference is then on its
    way from one uniform draw to another, and any of these is uniform.

    Args:
      catalogue: of I items.
      session: steps of a session.
      window: steps until interest is whole again.
    """
    usual = jnp.asarray(catalogue.average_chances(STRENGTH))
    shown = np.asarray(best_session(jnp.broadcast_to(usual, (session, len(usual))), window))

    def act(key: Key, meta: None, fast: None, memory: None, percept: Percept):
        del key, meta, fast
        step = jnp.round(percept.observation[-1] * session).astype(jnp.int32)
        return jnp.asarray(shown)[step], memory, {}

    return without_learning(lambda key, meta, context: (None, None), act, act)


class Fit(NamedTuple):
    """The memory of LinUCB: a ridge regression with D coefficients, and what its next target belongs to."""

    covariance: jax.Array
    """[D, D] float32, the inverse of ridge I + the sum of x x' over the steps, x their regressors."""
    moment: jax.Array
    """[D] float32, the sum of x y, y the clicks beyond the usual."""
    shown: jax.Array
    """[D] float32, regressors of the item shown last; zero at a lifetime's start, which teaches nothing."""
    usual: jax.Array
    """[] float32, the chance that an average user would have clicked on it."""

    def updated(self, reward: jax.Array) -> "Fit":
        """After the reward for what was shown last, by the formula of Sherman and Morrison."""
        direction = self.covariance @ self.shown
        covariance = self.covariance - jnp.outer(direction, direction) / (1 + self.shown @ direction)
        return self._replace(covariance=covariance, moment=self.moment + self.shown * (reward - self.usual))


def linucb_policy(catalogue: Catalogue, window: int, drift: float, alpha: float, ridge: float) -> Adapter:
    """LinUCB (Li et al. 2010): shows the item with the largest upper confidence bound on its chance of a click.

    A click is the usual one of an average user plus x . coefficients plus noise, where the regressors x are the item's
    features, times the interest that is left in it; with drift they are these twice, weighted by the shares of the
    first and of the later preference. The bound is that mean plus alpha sqrt(x' covariance x). It looks no step ahead.
    What is scored after a round is the mean alone.

    Args:
      catalogue: of I items.
      window: steps until interest is whole again.
      drift: share of the later preference at a session's end.
      alpha: width of the bound, in standard deviations of noise of variance 1.
      ridge: weight of the squared coefficients.

    Returns:
      An `Adapter` whose meta and fast are None and whose memory is `Fit`.

    Raises:
      UsageError: a negative alpha, or a ridge that is not above 0.
    """
    require(alpha >= 0, "linucb_policy:alpha", "be at least 0", alpha)
    require(ridge > 0, "linucb_policy:ridge", "be above 0", ridge)
    items, features = catalogue.features.shape
    coefficients = 2 * features if drift else features
    average = catalogue.average_chances(STRENGTH)

    def reset(key: Key, meta: None, context: PyTree):
        del key, meta, context
        nothing = jnp.zeros(coefficients, jnp.float32)
        return None, Fit(jnp.eye(coefficients, dtype=jnp.float32) / ridge, nothing, nothing, jnp.zeros((), jnp.float32))

    def acting(alpha: float):
        def act(key: Key, meta: None, fast: None, memory: Fit, percept: Percept):
            del key, meta, fast
            fit = memory.updated(percept.previous_reward)
            left = interest(percept.observation[:-1].reshape(window, items))
            described = jnp.asarray(catalogue.features)
            if drift:
                later = drift * percept.observation[-1]
                described = jnp.concatenate([(1 - later) * described, later * described], axis=1)
            regressors, usual = left[:, None] * described, left * average
            variance = jnp.sum((regressors @ fit.covariance) * regressors, axis=1)
            width = jnp.sqrt(jnp.maximum(variance, 0.0))
            bound = usual + regressors @ (fit.covariance @ fit.moment) + alpha * width
            item = jnp.argmax(bound).astype(percept.previous_action.dtype)
            return item, fit._replace(shown=regressors[item], usual=usual[item]), {}

        return act

    return without_learning(reset, acting(alpha), acting(0.0))


def recommender_policies(
    catalogue: Catalogue, session: int, window: int, drift: float, lifetime: AdaptationConfig
) -> dict[str, Adapter]:
    """Policies for `recommender`, by name.

    Alpha and ridge are one number each for lifetimes of any length, chosen for the family's defaults on the split
    `validation`. Mean clicks in 1, 3 and 10 sessions (standard errors 0.08, 0.2 and 0.5): with a ridge of 4 and an
    alpha of 0 8.38, 28.1, 101.2, of 0.25 8.34, 28.3, 102.6, of 0.5 8.35, 28.4, 103.0, of 1 8.31, 28.3, 102.8, of 1.5
    8.08, 27.7, 101.4; with an alpha of 0.5 and a ridge of 1 7.99, 27.9, 102.4, of 2 8.24, 28.2, 102.9, of 8 8.31, 28.3,
    102.5.

    Returns:
      `popularity` and `linucb`.
    """
    del lifetime
    return {
        "popularity": popularity_policy(catalogue, session, window),
        "linucb": linucb_policy(catalogue, window, drift, alpha=0.5, ridge=4.0),
    }
