"""A recommender: what a user likes is the task."""

from jaxmeta_envs.recommender.family import recommender

__all__ = ["recommender"]
