"""Votes over augmented copies of a frame, and means over time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.core import Weights
from ssl_jax.ttt import averages

HEIGHT, WIDTH, CANVAS = 40, 44, (48, 50)
KEY, WEIGHTS = jax.random.key(2), Weights({"shift": jnp.zeros(())}, {})
LEVELS = np.array([0.2, 0.5, 0.8], np.float32)


def of_pixels(params, model_state, batch):
  """Names a pixel by its own grey, so that moving the frame moves the classes."""
  grey = batch["image"].mean(-1, keepdims=True) + params["shift"]
  return -jnp.square(grey - LEVELS[None, None, None])


def of_places(params, model_state, batch):
  """Names a pixel by its column on the canvas, whatever the frame shows."""
  columns = jnp.arange(CANVAS[1])[None, None]
  found = jnp.broadcast_to(columns // 20, batch["image"].shape[:3])
  return jax.nn.one_hot(found, 3)


def frame(padding=0) -> dict[str, jax.Array]:
  image = np.full((*CANVAS, 3), padding, np.uint8)
  draw = np.random.default_rng(0)
  image[:HEIGHT, :WIDTH] = (255 * LEVELS[draw.integers(0, 3, (HEIGHT, WIDTH))])[..., None]
  return {"image": jnp.asarray(image), "image_size": jnp.array([HEIGHT, WIDTH], jnp.int32)}


@functools.partial(jax.jit, static_argnames="predict")
def add(sample, number, ballots, predict=of_pixels, index=7):
  return averages.add_ballots(predict, WEIGHTS, WEIGHTS.params, KEY, sample, index, number, ballots)


def ballots_of(sample, count, predict=of_pixels):
  own = predict(WEIGHTS.params, {}, {"image": sample["image"][None].astype(jnp.float32) / 255})[0]
  ballots = averages.first_ballots(own)
  for number in range(count):
    ballots = add(sample, number, ballots, predict)
  return own, np.asarray(ballots)


def test_votes_of_a_network_that_sees_single_pixels_are_those_of_the_frame():
  own, ballots = ballots_of(frame(), 6)
  inside = ballots[:HEIGHT, :WIDTH]
  np.testing.assert_array_equal(inside.argmax(-1), own.argmax(-1)[:HEIGHT, :WIDTH])
  assert (np.sort(inside, -1)[..., :-1] == 0).all()  # no vote for another class
  far = averages.SHIFT
  np.testing.assert_array_equal(inside[far : HEIGHT - far, far : WIDTH - far].max(-1), 6.5)
  assert inside.max(-1).min() < 6.5  # pixels of the border left some of the copies


def test_the_padding_plays_no_part():
  found = [ballots_of(frame(padding), 4)[1][:HEIGHT, :WIDTH] for padding in (0, 128)]
  np.testing.assert_array_equal(*found)


def test_each_vote_is_that_of_a_copy_that_was_mirrored_and_moved():
  """The class of a place on the canvas tells where each pixel came to lie."""
  flips, shifts = set(), set()
  columns = np.arange(WIDTH)
  for number in range(12):
    votes = np.asarray(add(frame(), number, jnp.zeros((*CANVAS, 3)), of_places))[:HEIGHT, :WIDTH]
    seen = votes.sum(-1) == 1
    matches = [
      (flip, right)
      for flip in (False, True)
      for right in range(-averages.SHIFT, averages.SHIFT + 1)
      if _agrees(votes, seen, (columns[::-1] if flip else columns) + right)
    ]
    assert len(matches) == 1
    flips.add(matches[0][0])
    shifts.add(matches[0][1])
  assert flips == {False, True} and len(shifts) > 6


def _agrees(votes, seen, places) -> bool:
  inside = (places >= 0) & (places < WIDTH)
  row = seen.any(0)
  return (row == inside).all() and (votes.max(0).argmax(-1)[inside] == (places // 20)[inside]).all()


def test_of_equal_votes_that_of_the_frame_itself_wins():
  own = jnp.array([[[0.0, 1.0, 0.0]]])
  split = averages.first_ballots(own) + jnp.array([[[1.0, 1.0, 0.0]]])
  assert split.argmax(-1) == 1
  outvoted = averages.first_ballots(own) + jnp.array([[[1.0, 0.0, 0.0]]])
  assert outvoted.argmax(-1) == 0
  np.testing.assert_allclose(averages.shares(split), [[[0.4, 0.6, 0.0]]])


@pytest.mark.parametrize("wrapped", [jax.jit, lambda f: lambda *a: jax.vmap(f)(*(x[None] for x in a))[0]])
def test_a_mean_over_time_by_hand(wrapped):
  smooth = wrapped(functools.partial(averages.smooth, 0.75))
  first, second = jnp.array([[[1.0, 0.0]]]), jnp.array([[[0.0, 1.0]]])
  np.testing.assert_allclose(smooth(first, second), [[[0.75, 0.25]]])
  np.testing.assert_allclose(smooth(smooth(first, second), second), [[[0.5625, 0.4375]]])
  np.testing.assert_allclose(smooth(first, first), first)


def test_draws_depend_on_the_frame_and_the_copy():
  zeros = jnp.zeros((*CANVAS, 3))
  found = [np.asarray(add(frame(), n, zeros, of_places, i)) for n, i in ((0, 7), (0, 7), (1, 7), (0, 8))]
  np.testing.assert_array_equal(found[0], found[1])
  assert (found[0] != found[2]).any() and (found[0] != found[3]).any()
