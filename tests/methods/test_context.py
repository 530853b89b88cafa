"""Context prediction: labels, pairs, the late join of features, and the shortcut of chromatic aberration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import PretextTask
from ssl_jax.core import DataSpec
from ssl_jax.methods import context
from ssl_jax.models import heads, network

DATA = DataSpec(100, 10, 8)
SMALL = dict(tile=6, gap=2, jitter=2, width=32, dropout=0.0, coarse=0.0)


def encoder():
  return models.make("resnet10", width=8, stem="cifar", normalize="centred")


def test_places_are_a_bijection_and_opposite_ones_add_up_to_7():
  first, second = context.PAIRS["centre"]
  assert context.relative_place(first, second).tolist() == list(range(8))
  np.testing.assert_array_equal(context.relative_place(second, first), 7 - np.arange(8))
  assert context.relative_place(4, 2) == 2  # to the upper right, as the cat's ear in the paper


def test_a_grid_has_40_ordered_pairs_each_label_as_often_as_its_opposite():
  first, second = context.PAIRS["all"]
  assert len(first) == 2 * (3 * 2 + 2 * 3 + 2 * 2 * 2) == 40
  often = np.bincount(context.relative_place(first, second), minlength=8)
  np.testing.assert_array_equal(often, often[::-1])
  assert often.tolist() == [4, 6, 4, 6, 6, 4, 6, 4]


def test_joining_late_is_a_linear_layer_on_both_features():
  """Compared with an explicit concatenation; the order of a pair matters."""
  head = network(heads.Pairs(8, 16, (4, 0), (0, 4), 0.0))
  x = jax.random.normal(jax.random.key(0), (5, 9, 12))
  weights = head.init(jax.random.key(1), x)
  out = np.asarray(head.apply(weights, x)[0])
  p = jax.device_get(weights.params)
  x = np.asarray(x)
  kernel = np.concatenate([p["first"]["kernel"], p["second"]["kernel"]])
  for n, (a, b) in enumerate(((4, 0), (0, 4))):
    hidden = np.concatenate([x[:, a], x[:, b]], -1) @ kernel
    hidden = np.maximum(hidden * np.float32(1 + 1e-5) ** -0.5, 0)
    np.testing.assert_allclose(
      out[:, n], hidden @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], rtol=1e-4, atol=1e-6
    )
  assert np.abs(out[:, 0] - out[:, 1]).max() > 1e-6


@pytest.mark.parametrize("colour", ["drop", "project", "grey", "none"])
def test_pieces_are_what_the_option_says(colour):
  method = methods.make("context", encoder(), DATA, colour=colour, grey=1.0, **SMALL)
  task = jax.jit(lambda key, x: method.abilities[PretextTask].make_task(key, x)[:2])(
    jax.random.key(0), jax.random.uniform(jax.random.key(1), (4, 24, 24, 3))
  )
  z = 4 * (np.asarray(task[0]) - 0.5)
  assert z.shape == (4, 9, 6, 6, 3)
  np.testing.assert_allclose((z**2).mean((2, 3, 4)), 1, atol=1e-3)
  power = np.sort((z**2).mean((2, 3)), -1)
  if colour == "drop":
    assert (power[..., 1] < 0.01).all()
  elif colour == "project":
    np.testing.assert_allclose(z @ [-1, 2, -1], 0, atol=1e-4)
  elif colour == "grey":
    np.testing.assert_allclose(z, z.mean(-1, keepdims=True) * np.ones(3), atol=1e-4)
  assert np.asarray(task[1]).tolist() == [list(range(8))] * 4


def shifted(key, count: int, size: int = 24, strength: float = 0.12, waves: int = 24) -> jax.Array:
  """Images f32[count, size, size, 3] whose only cue is a radial colour shift, as from a lens that magnifies
  red more than blue.

  Every channel samples a grey texture of random waves at locations farther from or nearer to the centre. The
  texture is evaluated there, not resampled, and looks the same everywhere: only the relation of the channels
  reveals a location.
  """
  wave_key, phase_key = jax.random.split(key)
  waves_ = jax.random.normal(wave_key, (count, waves, 2)) * 0.7
  phase = jax.random.uniform(phase_key, (count, waves, 1)) * 2 * jnp.pi
  middle = np.stack(np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 2, indexing="ij"), -1)
  places = middle[:, :, None] * np.array([1 + strength, 1.0, 1 - strength])[:, None]  # [S, S, 3, 2]
  flat = jnp.asarray(places.reshape(-1, 2), jnp.float32)
  texture = jnp.cos(jnp.einsum("nwc,pc->nwp", waves_, flat) + phase).mean(1)
  return jnp.clip(0.5 + texture.reshape(count, size, size, 3), 0, 1)


@functools.cache
def accuracy_on_shifts(colour: str, steps: int = 120) -> float:
  """Returns the accuracy on images whose only cue is the shift, for a network that was trained on such
  images.
  """
  method = methods.make("context", encoder(), DATA, colour=colour, **SMALL)
  images = jax.jit(functools.partial(shifted, count=32))
  rule = optax.adamw(3e-3)

  @jax.jit
  def step(params, model_state, opt_state, i):
    key = jax.random.fold_in(jax.random.key(0), i)
    (_, aux), gradient = jax.value_and_grad(method.loss, has_aux=True)(
      params, model_state, (), {"image": images(key)}, key
    )
    with jax.numpy_dtype_promotion("standard"):
      updates, opt_state = rule.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), aux.model_state, opt_state

  params, model_state, _ = jax.jit(method.init)(jax.random.key(7), {"image": images(jax.random.key(8))})
  opt_state = rule.init(params)
  for i in range(steps):
    params, model_state, opt_state = step(params, model_state, opt_state, jnp.int32(i))
  examine = jax.jit(method.abilities[PretextTask].evaluate_task)
  return float(
    np.mean(
      [examine(params, model_state, images(jax.random.key(1000 + i)))["accuracy"].mean() for i in range(8)]
    )
  )


@pytest.mark.slow
def test_without_defence_a_colour_shift_gives_places_away():
  assert accuracy_on_shifts("none") > 0.25  # chance is 0.125: the images do hold the shortcut


@pytest.mark.slow
def test_with_colour_dropping_a_colour_shift_tells_nothing():
  assert accuracy_on_shifts("drop") == pytest.approx(1 / 8, abs=0.03)  # 2,048 answers: deviation 0.007


def test_refusals():
  with pytest.raises(ValueError, match="tile 0, gap 2 and jitter 2 do not form a grid"):
    methods.make("context", encoder(), DATA, **{**SMALL, "tile": 0})
  method = methods.make("context", encoder(), DATA)
  with pytest.raises(ValueError, match="take 255 pixels; use config.augment.size 255 or more"):
    jax.eval_shape(method.init, jax.random.key(0), {"image": jnp.zeros((8, 224, 224, 3))})
