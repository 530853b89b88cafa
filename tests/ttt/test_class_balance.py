"""The guard on the number of classes: what is counted, and when the parameters are reset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.ttt import class_balance

SIZE = jnp.array([2, 3], jnp.int32)


def logits_of(classes) -> jax.Array:
  """f32[3, 4, 6] whose largest are these classes [2, 3], and class 5 in the padding."""
  canvas = np.full((3, 4), 5)
  canvas[:2, :3] = classes
  return 3.0 * jax.nn.one_hot(canvas, 6)


def test_classes_of_the_padding_do_not_count():
  assert class_balance.count_classes(logits_of([[0, 0, 0], [0, 0, 0]]), SIZE) == 1
  assert class_balance.count_classes(logits_of([[0, 1, 4], [1, 1, 0]]), SIZE) == 3
  assert class_balance.count_classes(logits_of([[5, 5, 5], [5, 5, 5]]), SIZE) == 1


@pytest.mark.parametrize(
  "adapted, balance, reset",
  [
    ([[0, 1, 2], [3, 3, 3]], 0.1, False),
    ([[0, 1, 2], [2, 2, 2]], 0.25, False),  # a quarter is not more than a quarter
    ([[0, 1, 2], [2, 2, 2]], 0.2, True),
    ([[0, 0, 0], [0, 0, 0]], 0.5, True),
    ([[0, 1, 2], [3, 4, 5]], 0.4, True),  # more classes are as suspicious as fewer
    ([[0, 1, 2], [3, 4, 5]], 0.5, False),
  ],
)
def test_parameters_are_reset_when_the_numbers_differ_by_more_than_the_fraction(adapted, balance, reset):
  trained = logits_of([[0, 1, 2], [3, 0, 0]])  # four classes
  moved, first = {"a": jnp.ones(3), "b": None}, {"a": jnp.zeros(3), "b": None}
  arguments = balance, logits_of(adapted), trained, SIZE, moved, first
  for run in (class_balance.guard, jax.jit(class_balance.guard)):
    after, found = run(*arguments)
    assert bool(found) is reset and after["b"] is None
    np.testing.assert_array_equal(after["a"], first["a"] if reset else moved["a"])
