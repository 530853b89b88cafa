"""Windows over a stream: which frames they hold, and that learning on them forgets as theory says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.core import Weights
from ssl_jax.ttt import window


@pytest.mark.parametrize("size", [0, 1, 4, 16])
def test_a_window_holds_the_latest_frames_and_no_future_ones(size):
  for number in (0, 3, 15, 40):
    found = window.window_of(number, size)
    assert len(found) == (min(number + 1, size) if size else number + 1)
    assert found[-1] == number


def test_each_frame_of_a_window_is_drawn_equally_often():
  drawn = window.draw_frames(np.random.default_rng(0), range(5, 21), steps=3, copies=32)
  assert drawn.rows.shape == (3, 32) and drawn.frames.tolist() == list(range(5, 21))
  for rows in drawn.rows:
    assert np.bincount(rows, minlength=16).tolist() == [2] * 16


def test_of_a_long_window_distinct_frames_are_drawn():
  drawn = window.draw_frames(np.random.default_rng(0), range(1000), steps=2, copies=8)
  assert len(drawn.frames) == 16 and sorted(drawn.rows.ravel().tolist()) == list(range(16))
  assert (np.diff(drawn.frames) > 0).all()


def test_the_rows_of_a_step_are_frames_of_the_sample():
  sample = {
    "image": jnp.zeros((2, 2, 3)),
    "frames": jnp.arange(3.0)[:, None, None, None] * jnp.ones((1, 2, 2, 3)),
    "frames_size": jnp.array([[2, 2], [2, 1], [1, 2]]),
    "rows": jnp.array([[0, 0], [2, 1]]),
  }
  batch = window.draw_rows(sample, 1, 2)
  assert batch["image"][:, 0, 0, 0].tolist() == [2, 1]
  assert batch["image_size"].tolist() == [[1, 2], [2, 1]]


@pytest.mark.parametrize("noise, drift", [(1.0, 1.0), (2.0, 0.3)])
def test_the_best_size_has_no_slope(noise, drift):
  best = window.best_size(noise, drift)
  bound = functools.partial(window.bound, noise=noise, drift=drift)
  slope = (bound(best + 1e-4) - bound(best - 1e-4)) / 2e-4
  assert abs(slope) < 1e-4 * bound(best)
  assert bound(best) < min(bound(0.5 * best), bound(2 * best))


def test_the_best_size_of_the_unit_case():
  assert window.best_size(1.0, 1.0) == pytest.approx(0.5 ** (1 / 3)) == pytest.approx(0.7937, abs=1e-4)
  # The published form, without the 2, gives 1, where the bound still has a slope.
  slope = (window.bound(1 + 1e-4, noise=1.0, drift=1.0) - window.bound(1 - 1e-4, noise=1.0, drift=1.0)) / 2e-4
  assert slope == pytest.approx(1.0, rel=1e-3)


def test_the_best_size_grows_with_the_cube_root_of_noise_over_drift_squared():
  base = window.best_size(1.0, 0.1)
  assert window.best_size(8.0, 0.1) == pytest.approx(4 * base)
  assert window.best_size(1.0, 0.8) == pytest.approx(base / 4)


def drifting(size: int, noise: float, drift: float, length: int = 2000) -> float:
  """The mean squared error of a model that follows a target by the mean of what it sees in its window."""
  rng = np.random.default_rng(0)
  target = (drift * np.arange(length)).astype(np.float32)
  seen = target + noise * rng.normal(size=length).astype(np.float32)
  adaptable = Adaptable(
    make_task=lambda key, batch: batch["image"].reshape(-1),
    loss=lambda params, state, task: 0.5 * jnp.square(params["w"] - task),
    predict=lambda params, state, batch: params["w"][None, None],
    trainable=("w",),
  )
  inner = ttt.make_adapt(
    adaptable, lambda key, batch: batch, optax.sgd(1.0), steps=1, copies=COPIES, draw=window.draw_rows
  )
  weights = Weights({"w": jnp.zeros(())}, {})

  def follow(sample):
    state = inner.begin(weights, weights.params, jax.random.key(0), sample, 0)
    return inner.finish(weights, weights.params, inner.step(weights, state, 0))[0].logits[0]

  samples = []
  for number in range(COPIES, length):
    chosen = window.window_of(number, size)
    drawn = window.draw_frames(np.random.default_rng(number), chosen, steps=1, copies=COPIES)
    samples.append((np.resize(seen[drawn.frames] - target[number], COPIES), drawn.rows))
  frames, rows = (np.stack(part) for part in zip(*samples))
  sample = {
    "image": np.zeros((len(rows), 1, 1, 1), np.float32),
    "frames": frames.reshape(-1, COPIES, 1, 1, 1).astype(np.float32),
    "frames_size": np.ones((len(rows), COPIES, 2), np.int32),
    "rows": rows,
  }
  return float(jnp.square(jax.jit(jax.vmap(follow))(sample)).mean())


COPIES, SIZES = 32, (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("noise, drift", [(1.0, 0.2), (2.0, 0.1), (4.0, 0.1)])
def test_errors_on_a_drifting_target_are_u_shaped_with_the_minimum_where_theory_puts_it(noise, drift):
  """The mean of k frames is late by (k - 1) / 2 frames: its error is ((k - 1) drift / 2)^2 + noise^2 / k."""
  found = [drifting(size, noise, drift) for size in SIZES]
  expected = [((size - 1) * drift / 2) ** 2 + noise**2 / size for size in SIZES]
  np.testing.assert_allclose(found, expected, rtol=0.2)
  best = int(np.argmin(found))
  assert best == np.argmin(expected) and 0 < best < len(SIZES) - 1
  assert found[0] > 1.3 * found[best] and found[-1] > 1.3 * found[best]


def test_noise_asks_for_a_longer_window_and_drift_for_a_shorter_one():
  best = lambda noise, drift: SIZES[int(np.argmin([drifting(size, noise, drift) for size in SIZES]))]
  assert [best(4.0, 0.1), best(2.0, 0.1), best(2.0, 0.4), best(1.0, 0.5)] == [16, 8, 4, 2]
