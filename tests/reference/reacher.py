"""Reacher in NumPy: an arm of two links of half a metre, turned by a motor at either joint."""

import numpy as np


def step(angles, velocities, torques, goal):
    """Angles, velocities, fingertip and reward a twentieth of a second later; double precision throughout."""
    torques = np.minimum(np.maximum(torques, -1.0), 1.0)
    velocities = [0.95 * velocity + 0.5 * torque for velocity, torque in zip(velocities, torques, strict=True)]
    angles = [angle + 0.05 * velocity for angle, velocity in zip(angles, velocities, strict=True)]
    elbow = 0.5 * np.exp(1j * angles[0])
    tip = elbow + 0.5 * np.exp(1j * (angles[0] + angles[1]))
    reward = -abs(tip - complex(*goal)) - 0.01 * (torques[0] ** 2 + torques[1] ** 2)
    return angles, velocities, (tip.real, tip.imag), reward
