"""The names of the task families."""

FAMILIES = {
    "grid_navi": "jaxmeta_envs.grid_navi:grid_navi",
    "cartpole": "jaxmeta_envs.cartpole:cartpole",
    "maze": "jaxmeta_envs.maze:maze",
    "acrobot": "jaxmeta_envs.classic_control:acrobot",
    "mountain_car": "jaxmeta_envs.classic_control:mountain_car",
    "pendulum": "jaxmeta_envs.classic_control:pendulum",
    "gymnax": "jaxmeta_envs.from_gymnax:gymnax_tasks",
    "bandit": "jaxmeta_envs.bandit:bandit",
    "gaussian_bandit": "jaxmeta_envs.bandit:gaussian_bandit",
    "tabular_mdp": "jaxmeta_envs.tabular_mdp:tabular_mdp",
    "recommender": "jaxmeta_envs.recommender:recommender",
    "point_navigation": "jaxmeta_envs.point_navigation:point_navigation",
    "reacher": "jaxmeta_envs.reacher:reacher",
    "probe": "jaxmeta_envs.probes:probe",
    "xland": "jaxmeta_envs.xland:xland",
}
"""Where each family is, by name. It is imported on first use."""
