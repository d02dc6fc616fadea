"""A controller that knows the physics of a cart and pole, in NumPy: linear-quadratic feedback at full force."""

import numpy as np
import scipy.linalg


def linear_model(constants: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """State matrix [4, 4] and input column [4, 1] of one Euler step, linearised upright, for a force in newtons.

    The state is (x, x_dot, theta, theta_dot); the pole is a uniform rod of half-length `length`, hinged on the cart.
    """
    gravity, length, tau = constants["gravity"], constants["length"], constants["tau"]
    cart, pole = constants["masscart"], constants["masspole"]
    total = cart + pole
    inertia = length * (4 / 3 - pole / total)
    angular = np.array([0, 0, gravity / inertia, 0])
    linear = -pole * length / total * angular
    rates = np.array([[0, 1, 0, 0], linear, [0, 0, 0, 1], angular])
    angular_input = -1 / (total * inertia)
    inputs = np.array([[0], [1 / total - pole * length / total * angular_input], [0], [angular_input]])
    return np.eye(4) + tau * rates, tau * inputs


def feedback(constants: dict[str, float]) -> np.ndarray:
    """Gain [4] of the regulator: the force is minus its product with the state, so a negative product pushes right.

    The cost weighs the angle far above the place: a weak force on a heavy cart must spend itself on the pole first.
    """
    state, inputs = linear_model(constants)
    force_cost = np.array([[0.01]])
    value = scipy.linalg.solve_discrete_are(state, inputs, np.diag([0.01, 0.01, 10.0, 0.1]), force_cost)
    return np.linalg.solve(force_cost + inputs.T @ value @ inputs, inputs.T @ value @ state)[0]
