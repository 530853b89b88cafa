"""Optimisers and schedules against the written-out formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import optim

RUN = dict(total_steps=100, steps_per_epoch=10, batch_size=4096)


def follow(made: optim.Optimizer, params, gradients):
  state = made.transform.init(params)
  for gradient in gradients:
    updates, state = made.transform.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_sgd_is_pytorchs():
  made = optim.make(**RUN, name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.01, schedule="constant")
  p, m = np.array([1.0, -2.0]), np.zeros(2)
  gradients = [np.array([0.5, 0.1]), np.array([-0.2, 0.3]), np.array([0.1, 0.1])]
  for g in gradients:
    m = 0.9 * m + g + 0.01 * p
    p = p - 0.1 * m
  found = follow(made, jnp.array([1.0, -2.0]), [jnp.asarray(g, jnp.float32) for g in gradients])
  np.testing.assert_allclose(found, p, rtol=1e-6)


def test_lars_is_simclrs():
  made = optim.make(**RUN, name="lars", learning_rate=0.5, momentum=0.9, weight_decay=1e-4, schedule="constant")
  weight, bias = np.array([[3.0, 4.0]]), np.array([1.0, 2.0])
  mw, mb = 0.0, 0.0
  for g in (np.array([[0.6, 0.8]]), np.array([[0.1, -0.3]])):
    d = g + 1e-4 * weight
    mw = 0.9 * mw + 0.5 * 0.001 * np.linalg.norm(weight) / np.linalg.norm(d) * d
    mb = 0.9 * mb + 0.5 * g[0]
    weight, bias = weight - mw, bias - mb
  gradients = [{"w": jnp.array(g, jnp.float32), "b": jnp.array(g[0], jnp.float32)} for g in (
      [[0.6, 0.8]], [[0.1, -0.3]])]
  found = follow(made, {"w": jnp.array([[3.0, 4.0]]), "b": jnp.array([1.0, 2.0])}, gradients)
  np.testing.assert_allclose(found["w"], weight, rtol=1e-6)
  np.testing.assert_allclose(found["b"], bias, rtol=1e-6)


def test_lars_trust_ratio_of_the_specification():
  made = optim.make(**RUN, name="lars", learning_rate=1.0, momentum=0.0, weight_decay=1e-4, schedule="constant")
  found = follow(made, jnp.array([[3.0, 4.0]]), [jnp.array([[0.6, 0.8]])])
  decayed = np.array([[0.6, 0.8]]) + 1e-4 * np.array([[3.0, 4.0]])
  np.testing.assert_allclose((np.array([[3.0, 4.0]]) - found) / decayed, 0.0049975012, rtol=1e-4)


@pytest.mark.parametrize("scaling, base", [("linear", 0.3), ("sqrt", 0.075)])
def test_warm_up_and_cosine_of_simclr(scaling, base):
  rate = optim.make(**RUN, name="lars", learning_rate=base, scaling=scaling, warmup_epochs=2.0).schedule
  np.testing.assert_allclose([rate(0), rate(10), rate(20), rate(60), rate(100)], [0, 2.4, 4.8, 2.4, 0], atol=1e-6)


def test_moco_v2_cosine_is_constant_within_an_epoch():
  rate = optim.make(**RUN, learning_rate=0.03, schedule="cosine_by_epoch").schedule
  values = np.array([rate(step) for step in range(100)]).reshape(10, 10)
  assert (values == values[:, :1]).all()
  np.testing.assert_allclose(values[:, 0], 0.03 * 0.5 * (1 + np.cos(np.pi * np.arange(10) / 10)), rtol=1e-5)


def test_steps_drop_at_their_epochs():
  rate = optim.make(**RUN, learning_rate=1.0, schedule="step", milestones=(6.0, 8.0)).schedule
  np.testing.assert_allclose([rate(0), rate(59), rate(60), rate(79), rate(80)], [1, 1, 0.1, 0.1, 0.01], rtol=1e-5)


@pytest.mark.parametrize("options, message", [
    (dict(learning_rate=0.0), "learning_rate is 0.0; use a positive one"),
    (dict(learning_rate=1.0, milestones=(3.0, 2.0)), "do not increase"),
    (dict(learning_rate=1.0, warmup_epochs=10.0), "are 100 steps, but the run has only 100")])
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    optim.make(**RUN, **options)
