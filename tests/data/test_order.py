"""The order of images is a pure function of (seed, epoch, index)."""

import numpy as np
import pytest

from ssl_jax.data.order import EvalOrder, TrainOrder, permutation


def stream(order, steps):
  return np.concatenate([order.rows(step).indices for step in steps])


def test_every_epoch_is_another_permutation_without_its_remainder():
  order = TrainOrder(size=50, batch_size=8, seed=3, positions=range(8))
  first, second = stream(order, range(6)), stream(order, range(6, 12))
  for epoch, found in enumerate((first, second)):
    assert len(set(found.tolist())) == 48
    np.testing.assert_array_equal(found, np.random.default_rng((3, epoch)).permutation(50)[:48])
  assert not np.array_equal(first, second)
  other = TrainOrder(size=50, batch_size=8, seed=4, positions=range(8))
  assert not np.array_equal(first, stream(other, range(6)))


@pytest.mark.parametrize("kind", [TrainOrder, EvalOrder])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batch(kind, processes):
  seed = {"seed": 7} if kind is TrainOrder else {}
  whole = kind(size=50, batch_size=8, positions=range(8), **seed)
  parts = [kind(size=50, batch_size=8, positions=range(p, 8, processes), **seed) for p in range(processes)]
  for step in range(7):
    rows, shares = whole.rows(step), [part.rows(step) for part in parts]
    for p, share in enumerate(shares):  # every second or fourth row: interleaved devices
      np.testing.assert_array_equal(share.indices, rows.indices[p::processes])
      np.testing.assert_array_equal(share.valid, rows.valid[p::processes])
      assert share.seeds == rows.seeds[p::processes]


def test_random_numbers_are_distinct_from_each_other_and_from_those_that_shuffle():
  order = TrainOrder(size=40, batch_size=8, seed=0, positions=range(8))
  seeds = [seed for step in range(10) for seed in order.rows(step).seeds] + [(0, 0), (0, 1)]
  draws = {np.random.default_rng(seed).integers(2**62) for seed in seeds}
  assert len(draws) == 5 * 8 * 2 + 2


def test_evaluation_shows_everything_once_in_order():
  order = EvalOrder(size=21, batch_size=8, positions=range(8))
  rows = [order.rows(step) for step in range(3)]
  indices = np.concatenate([r.indices[r.valid] for r in rows])
  np.testing.assert_array_equal(indices, np.arange(21))
  assert rows[-1].valid.tolist() == [True] * 5 + [False] * 3


def test_permutations_are_kept_and_cannot_be_changed():
  assert permutation(1, 2, 30) is permutation(1, 2, 30)
  with pytest.raises(ValueError, match="read-only"):
    permutation(1, 2, 30)[0] = 5
