"""The expert of cartpole swing-up: energy until the pole is near the top, then a linear regulator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

GRAVITY, MASS, HALF = 9.81, 0.1, 0.5  # m / s^2, kg, m: of the pole
INERTIA = MASS * (2 * HALF) ** 2 / 3  # of the pole around its hinge, kg m^2
PUMP, CENTRE, BRAKE = 20.0, 0.6, 0.1  # of the swing: action per power, metre and metre a second
PUMP_LIMIT = 0.45  # of the action of the pump: with a greater one the cart leaves the picture
NEAR = 0.8  # radians from the top within which the regulator acts
REACH = 3.0  # greatest action that the regulator may ask for before the swing takes over
STATE_COSTS, ACTION_COST = (2.0, 10.0, 0.5, 0.5), 0.3  # of position, angle, velocity, angular velocity


def make_expert(environment: Any, repeat: int) -> Callable[[Any], np.ndarray]:
  """Returns the expert: physics -> the action f64[1] in [-1, 1].

  Args:
    environment: dm_control's cartpole.
    repeat: control steps for which an action is held; the regulator is designed for it.
  Source: energy control of Astrom and Furuta 2000; the gains are ours.
  """
  gains = _regulator(environment, repeat)

  def act(physics: Any) -> np.ndarray:
    (place, angle), (speed, turning) = physics.data.qpos, physics.data.qvel
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    wanted = -float(gains @ np.array([place, angle, speed, turning]))
    if abs(angle) > NEAR or abs(wanted) > REACH:
      missing = INERTIA * turning**2 / 2 + MASS * GRAVITY * HALF * (np.cos(angle) - 1)
      pump = float(np.clip(PUMP * missing * turning * np.cos(angle), -PUMP_LIMIT, PUMP_LIMIT))
      wanted = pump - CENTRE * place - BRAKE * speed
    return np.clip(np.array([wanted]), -1, 1)

  return act


def _regulator(environment: Any, repeat: int) -> np.ndarray:
  """f64[4]: the gains of the linear-quadratic regulator of the simulation around the top, with held actions.

  The linear system is found by finite differences through the simulation itself.
  """
  physics = copy.deepcopy(environment.physics)
  substeps = round(environment.control_timestep() / physics.timestep()) * repeat

  def after(state: np.ndarray, action: float) -> np.ndarray:
    with physics.reset_context():
      physics.data.qpos[:], physics.data.qvel[:] = state[:2], state[2:]
    physics.set_control([action])
    physics.step(substeps)
    return np.concatenate([physics.data.qpos, physics.data.qvel])

  small, still = 1e-4, np.zeros(4)
  change = np.stack([(after(small * e, 0) - after(-small * e, 0)) / (2 * small) for e in np.eye(4)], 1)
  push = ((after(still, small) - after(still, -small)) / (2 * small))[:, None]
  cost = scipy.linalg.solve_discrete_are(change, push, np.diag(STATE_COSTS), np.eye(1) * ACTION_COST)
  return np.linalg.solve(ACTION_COST + push.T @ cost @ push, push.T @ cost @ change)[0]
