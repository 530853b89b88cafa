"""Jigsaw: the permutation set against brute force and published statistics, and the shuffle."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import PretextTask
from ssl_jax.core import DataSpec
from ssl_jax.methods.jigsaw import permutation_set
from ssl_jax.methods.pretext import tile_grid

DATA = DataSpec(100, 10, 8)
SMALL = dict(permutations=24, tile=4, gap=1, jitter=2, width=16)


def encoder():
  return models.make("resnet10", width=8, stem="cifar", normalize="centred")


def distances(orders: np.ndarray) -> np.ndarray:
  return (orders[:, None] != orders[None]).sum(-1)[np.triu_indices(len(orders), 1)]


@pytest.mark.parametrize(
  "count, selection, mean, least",
  [
    (9, "mean", 9.0, 9),
    (9, "minimum", 9.0, 9),
    (64, "mean", 8.125, 2),
    (64, "minimum", 7.977, 7),
    (100, "mean", 8.080, 2),
    (100, "minimum", 8.021, 6),
    (1000, "mean", 8.008, 2),
    (1000, "minimum", 7.910, 5),
  ],
)
def test_distances_are_the_greedy_rules(count, selection, mean, least):
  orders = permutation_set(count, selection)
  assert (np.sort(orders, 1) == np.arange(9)).all() and len(np.unique(orders, axis=0)) == count
  # Ties are resolved differently after another first permutation.
  assert distances(orders).mean() == pytest.approx(mean, abs=0.02)
  assert distances(orders).min() == least


@pytest.mark.parametrize("selection", ["mean", "minimum"])
def test_each_step_is_the_best_of_all_permutations(selection):
  """Brute force: no other permutation was farther from those chosen before; ties went to the first one."""
  orders = permutation_set(12, selection, 5)
  every = np.array(list(itertools.permutations(range(9))))
  apart = np.stack([(every != order).sum(1) for order in orders])
  for n in range(1, 12):
    score = apart[:n].mean(0) if selection == "mean" else apart[:n].min(0).astype(float)
    score[(apart[:n] == 0).any(0)] = -1
    np.testing.assert_array_equal(every[np.isclose(score, score.max()).argmax()], orders[n])


def test_a_set_is_a_function_of_its_seed_for_ever():
  assert permutation_set(100)[:2].tolist() == [[0, 1, 2, 3, 4, 5, 6, 8, 7], [1, 0, 3, 2, 5, 4, 7, 6, 8]]
  assert not np.array_equal(permutation_set(100), permutation_set(100, "mean", 1))


@pytest.mark.parametrize("count", [1, 362_881])
def test_impossible_sets_are_refused(count):
  with pytest.raises(ValueError, match=f"config.method.permutations is {count}; use 2 to 362880"):
    methods.make("jigsaw", encoder(), DATA, **{**SMALL, "permutations": count})


def test_sorting_the_permutation_restores_the_order_of_tiles():
  """The tiles of random images are compared, because standardisation would erase a constant grey level per
  cell.
  """
  method = methods.make(
    "jigsaw", encoder(), DATA, jitter=0, grey=0.0, **{k: v for k, v in SMALL.items() if k != "jitter"}
  )
  images = jax.random.uniform(jax.random.key(0), (8, 14, 14, 3))
  task = method.abilities[PretextTask].make_task(jax.random.key(1), images)
  inverse = np.argsort(permutation_set(24)[np.asarray(task.targets)[:, 0]], axis=1)
  found = np.take_along_axis(np.asarray(task.inputs), inverse[:, :, None, None, None], axis=1)
  cells = images.reshape(8, 14, 14, 3)
  for n in range(9):
    top, left = 5 * (n // 3), 5 * (n % 3)
    np.testing.assert_allclose(
      found[:, n], tile_grid.standardize(cells[:, top : top + 4, left : left + 4]), atol=1e-5
    )


@pytest.mark.parametrize("permutations, log", [(1000, 6.9078), (100, 4.6052)])
def test_loss_starts_at_the_logarithm_of_the_number(permutations, log):
  method = methods.make("jigsaw", encoder(), DATA, **{**SMALL, "permutations": permutations})
  batch = {"image": jax.random.uniform(jax.random.key(0), (8, 16, 16, 3))}
  start = jax.jit(method.init)(jax.random.key(0), batch)
  assert float(
    jax.jit(method.abilities[PretextTask].evaluate_task)(start.params, start.model_state, batch["image"])[
      "loss"
    ].mean()
  ) == pytest.approx(log, abs=0.3)


def test_defences_change_pixels_and_channel_jitter_takes_from_the_side():
  method = methods.make("jigsaw", encoder(), DATA, project=1.0, grey=0.0, channel_jitter=2, **SMALL)
  shape = jax.eval_shape(
    lambda x: method.abilities[PretextTask].make_task(jax.random.key(0), x).inputs, jnp.zeros((2, 18, 18, 3))
  ).shape
  assert shape == (2, 9, 4, 4, 3)
  with pytest.raises(ValueError, match="take 16 pixels"):
    jax.eval_shape(
      lambda x: method.abilities[PretextTask].make_task(jax.random.key(0), x).inputs,
      jnp.zeros((2, 17, 17, 3)),
    )
