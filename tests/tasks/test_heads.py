"""The optimisation of linear heads, compared with numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.tasks import heads as heads_lib
from ssl_jax.tasks.heads import Recipe, init_heads, make_schedule, make_update, train_on_features
from ssl_jax.tasks.task import silent

N, D, C = 48, 6, 3
X = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32) * 2 + 1
Y = np.random.default_rng(1).integers(0, C, N).astype(np.int32)


def gradient(kernel, bias, x, y):
  scores = x @ kernel + bias
  shares = np.exp(scores - scores.max(1, keepdims=True))
  shares /= shares.sum(1, keepdims=True)
  off = (shares - np.eye(C)[y]) / len(y)
  return {"kernel": x.T @ off, "bias": off.sum(0)}


def train_in_numpy(params, recipe, rate, steps, x=X):
  """SGD as in PyTorch and LARS as in MoCo v3, on the full batch."""
  momentum = {name: np.zeros_like(value) for name, value in params.items()}
  for step in range(steps):
    gradients = gradient(**params, x=x, y=Y)
    for name, value in params.items():
      lars = recipe.optimizer == "lars"
      g = gradients[name] + (recipe.weight_decay * value if not lars or value.ndim > 1 else 0.0)
      if lars and value.ndim > 1:
        g = g * 0.001 * np.linalg.norm(value) / np.linalg.norm(g)
      momentum[name] = recipe.momentum * momentum[name] + g
      move = g + recipe.momentum * momentum[name] if recipe.optimizer == "nesterov" else momentum[name]
      params[name] = value - rate(step) * move
  return params


@pytest.mark.parametrize(
  "optimizer,schedule,weight_decay",
  [("sgd", "steps", 0.0), ("nesterov", "cosine", 0.01), ("lars", "cosine", 1e-4)],
)
def test_optimisers_follow_their_formulas(mesh_of, optimizer, schedule, weight_decay):
  epochs, rates = 10, (0.5, 0.05)
  recipe = Recipe(
    rates, optimizer=optimizer, schedule=schedule, weight_decay=weight_decay, epochs=epochs, batch_size=N
  )
  key = jax.random.key(0)
  start = init_heads(jax.random.split(key)[0], recipe, width=D, num_classes=C)
  found, losses = train_on_features(
    X, Y, num_classes=C, recipe=recipe, mesh=mesh_of(1), key=key, device_bytes=1 << 30, progress=silent
  )
  share = {
    "steps": lambda step: 1.0 if step < 6 else 0.1 if step < 8 else 0.01,
    "cosine": lambda step: 0.5 * (1 + np.cos(np.pi * step / epochs)),
  }[schedule]
  for head, rate in enumerate(rates):
    params = {name: np.asarray(value[head], np.float64) for name, value in start.params.items()}
    expected = train_in_numpy(params, recipe, lambda step, rate=rate: rate * share(step), epochs)
    for name, value in expected.items():
      np.testing.assert_allclose(found.params[name][head], value, rtol=1e-3, atol=1e-5)
  assert losses.shape == (2,) and int(found.step) == epochs


def test_lars_trust_ratio_of_the_specification():
  recipe = Recipe((1.0,), optimizer="lars", weight_decay=1e-4)
  optimizer = heads_lib._make_optimizer(recipe)
  params = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([3.0, 4.0])}
  gradients = {"kernel": jnp.array([[0.6, 0.8]]), "bias": jnp.array([0.6, 0.8])}
  updates, _ = optimizer.update(gradients, optimizer.init(params), params)
  np.testing.assert_allclose(updates["kernel"], 0.0049975012 * np.array([[0.6003, 0.8004]]), rtol=1e-5)
  np.testing.assert_allclose(updates["bias"], [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
  "recipe,expected",
  [
    (
      Recipe((1.0,), schedule="steps", epochs=100),
      {0: 1, 60 * 7 - 1: 1, 60 * 7: 0.1, 80 * 7 - 1: 0.1, 80 * 7: 0.01, 100 * 7 - 1: 0.01},
    ),
    (Recipe((1.0,), schedule="cosine", epochs=90), {0: 1, 45 * 7: 0.5, 90 * 7: 0}),
    (
      Recipe((1.0,), schedule="cosine", epochs=90, warmup_epochs=10),
      {0: 0, 35: 0.5, 70: 1, 50 * 7: 0.5, 90 * 7: 0},
    ),
    (
      Recipe((1.0,), schedule="steps", epochs=10, warmup_epochs=2),
      {0: 0, 7: 0.5, 14: 1, 41: 1, 42: 0.1, 56: 0.01},
    ),
    (Recipe((1.0,), schedule="constant", epochs=9), {0: 1, 62: 1}),
  ],
)
def test_schedules(recipe, expected):
  schedule = jax.jit(make_schedule(recipe, steps_per_epoch=7))
  for step, value in expected.items():
    np.testing.assert_allclose(schedule(jnp.int32(step)), value, atol=1e-6, err_msg=f"step {step}")


def test_batchnorm_uses_the_batch_in_training_and_running_moments_after():
  recipe = Recipe((0.5,), normalize="batchnorm")
  start = init_heads(jax.random.key(0), recipe, width=D, num_classes=C)
  heads, losses = jax.jit(make_update(recipe, steps_per_epoch=1))(start, X, Y)
  np.testing.assert_allclose(heads.moments.mean, 0.1 * X.mean(0), atol=1e-6)
  np.testing.assert_allclose(heads.moments.variance, 0.9 + 0.1 * X.var(0, ddof=1), rtol=1e-5)
  standard = (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-6)
  params = {name: np.asarray(value[0], np.float64) for name, value in start.params.items()}
  expected = train_in_numpy(params, recipe, lambda step: 0.5, 1, x=standard)
  np.testing.assert_allclose(heads.params["kernel"][0], expected["kernel"], atol=1e-5)
  assert np.isfinite(losses).all()


def test_evaluation_normalises_with_the_running_moments(mesh_of):
  recipe = Recipe((0.5,), normalize="batchnorm")
  heads = init_heads(jax.random.key(0), recipe, width=D, num_classes=C)
  heads = heads._replace(moments=heads_lib.Moments(jnp.asarray(X.mean(0)), jnp.asarray(X.var(0))))
  expected = (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-6) @ np.asarray(heads.params["kernel"][0])
  ((block, found),) = heads_lib.score(heads, X, mesh_of(8))
  np.testing.assert_allclose(found[0], expected, atol=1e-5)
  assert block == slice(0, N)


def train(mesh, *, rates=(0.3,), device_bytes=1 << 30, key=0, **changes):
  recipe = Recipe(rates, epochs=3, batch_size=8)
  return train_on_features(
    X,
    Y,
    num_classes=C,
    recipe=dataclasses.replace(recipe, **changes),
    mesh=mesh,
    key=jax.random.key(key),
    device_bytes=device_bytes,
    progress=silent,
  )


def test_a_sweep_equals_its_single_runs(mesh_of):
  rates = (1.0, 0.1, 0.01)
  together, losses = train(mesh_of(1), rates=rates)
  for head, rate in enumerate(rates):
    alone, loss = train(mesh_of(1), rates=(rate,))
    np.testing.assert_allclose(together.params["kernel"][head], alone.params["kernel"][0], atol=1e-6)
    np.testing.assert_allclose(losses[head], loss[0], rtol=1e-5)


@pytest.mark.parametrize("normalize", ["none", "batchnorm"])
def test_devices_and_streaming_change_nothing(mesh_of, monkeypatch, normalize):
  expected, losses = train(mesh_of(1), normalize=normalize)
  monkeypatch.setattr(heads_lib, "STREAM_BYTES", 4 * 8 * D * 4)  # four batches at a time, then two
  for mesh, device_bytes in ((mesh_of(8), 1 << 30), (mesh_of(3), 1 << 30), (mesh_of(8), 0)):
    found, found_losses = train(mesh, device_bytes=device_bytes, normalize=normalize)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)


def test_the_key_decides_order_and_start(mesh_of, monkeypatch):
  first, again, other = (train(mesh_of(1), key=key)[0].params["kernel"] for key in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3
  same = jax.random.key(0)
  monkeypatch.setattr(heads_lib, "init_heads", lambda key, *rest, **more: init_heads(same, *rest, **more))
  first, other = (train(mesh_of(1), key=key)[0].params["kernel"] for key in (0, 1))
  assert np.abs(first - other).max() > 1e-3  # the same initial weights, another order


def test_every_step_is_reported_and_one_compile_serves_all_epochs(mesh_of):
  reports, recipe = [], Recipe((0.1,), epochs=5, batch_size=8)
  before = heads_lib._scan_rows._cache_size()
  train_on_features(
    X,
    Y,
    num_classes=C,
    recipe=recipe,
    mesh=mesh_of(2),
    key=jax.random.key(0),
    device_bytes=1 << 30,
    progress=lambda *report: reports.append(report),
  )
  assert heads_lib._scan_rows._cache_size() == before + 1
  assert [(done, total) for done, total, _ in reports] == [(done, 30) for done in (6, 12, 18, 24, 30)]
  assert reports[-1][2] < reports[0][2]


def test_a_batch_above_the_training_set_is_refused(mesh_of):
  with pytest.raises(ValueError, match="batch_size=64 is more than the 48 training rows; use batch_size<=48"):
    train(mesh_of(1), batch_size=64)
