"""The head of DensePose: shapes, initial losses, gradients, the transposed convolutions, what is read out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.detect.densepose_losses import NAMES, DenseLogits
from ssl_jax.models import densepose, detection
from tests.models.test_detection import LIMITS, SIDE, flat

ROWS, POINTS = 2, 4
TINY = dict(channels=8, width=8, convolutions=2, rois=3)


def make(**options):
  encoder = models.make("resnet10", width=8)
  head = densepose.dense_head(**TINY | options)
  return detection.detector(encoder, 1, "fpn", channels=16, hidden=32, limits=LIMITS, further=head)


def batch(annotated=True):
  random = np.random.default_rng(0)
  boxes = np.array([[[8, 8, 40, 44], [0] * 4], [[4, 20, 36, 52], [30, 4, 54, 28]]], np.float32)
  targets = {
    "boxes": boxes,
    "boxes_class": np.zeros((2, ROWS), np.int32),
    "boxes_valid": boxes[..., 2] > 0,
    "boxes_crowd": np.zeros((2, ROWS), bool),
    "boxes_points": random.uniform(0.1, 0.9, (2, ROWS, POINTS, 2)).astype(np.float32),
    "boxes_points_part": random.integers(1, 25, (2, ROWS, POINTS), np.int32),
    "boxes_points_uv": random.uniform(size=(2, ROWS, POINTS, 2)).astype(np.float32),
    "boxes_points_valid": np.full((2, ROWS, POINTS), annotated) & (boxes[..., 2:3] > 0),
    "boxes_segments": np.full((2, ROWS, 8, 8), 3, np.uint8),
  }
  images = random.uniform(size=(2, SIDE, SIDE, 3)).astype(np.float32)
  return jnp.asarray(images), jnp.array([[60, 56]] * 2), jax.tree.map(jnp.asarray, targets)


def total(net, params, state, *data):
  terms, state = net.train_loss(Weights(params, state), *data)
  return sum(terms.values()), terms


@functools.lru_cache
def program():
  net = make()
  weights = jax.jit(net.init)(jax.random.key(0), batch()[0])
  learn = jax.jit(jax.value_and_grad(functools.partial(total, net), has_aux=True))
  return weights, learn, jax.jit(net.predict)


def test_losses_begin_at_ignorance_and_reach_every_leaf():
  weights, learn, _ = program()
  (_, terms), gradients = learn(*weights, *batch(), jax.random.key(0))
  assert {"coarse", "fine", "uv"} < set(terms) and "masks" not in terms
  assert terms["fine"] == pytest.approx(np.log(25), abs=0.05)
  assert terms["coarse"] == pytest.approx(5 * np.log(2), abs=0.1)
  assert {"decoder", "dense"} < set(gradients)
  assert not [name for name, leaf in flat(gradients).items() if not np.abs(leaf).max() > 0]


def test_objects_without_points_train_the_boxes_alone():
  weights, learn, _ = program()
  images, sizes, targets = batch(annotated=False)
  targets |= {name: targets[name] * jnp.nan for name in ("boxes_points", "boxes_points_uv")}
  (_, terms), gradients = learn(*weights, images, sizes, targets, jax.random.key(0))
  assert terms["coarse"] == terms["fine"] == terms["uv"] == 0 < terms["classes"]
  for name in ("decoder", "dense"):
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients[name])), name
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
  assert learn._cache_size() == 1


def test_predictions_cover_every_detection():
  weights, _, predict = program()
  found = predict(weights, *batch()[:2])
  assert found.masks is None and found.further.parts.shape == (2, 5, 112, 112)
  assert found.further.uv.shape == (2, 5, 112, 112, 2)
  parts, uv = np.asarray(found.further.parts), np.asarray(found.further.uv)
  assert (
    parts.max() <= 24 and parts.any() and not uv[parts == 0].any() and (uv >= 0).all() and (uv <= 1).all()
  )


def test_a_pixel_is_read_at_its_part_and_only_on_the_body():
  one = lambda *values: jnp.asarray(values, jnp.float32)[None]
  fine = jnp.zeros((1, 25)).at[0, 7].set(3.0)
  u, v = jnp.zeros((1, 25)).at[0, 7].set(0.25), jnp.full((1, 25), 1.5)
  found = densepose.read_out(DenseLogits(one(0, 1), fine, u, v))
  assert found.parts.tolist() == [7] and found.uv.tolist() == [[0.25, 1.0]]
  nothing = densepose.read_out(DenseLogits(one(1, 0), fine, u, v))
  assert nothing.parts.tolist() == [0] and not nothing.uv.any()
  assert nothing.parts.dtype == jnp.uint8


def test_the_published_head_has_the_published_shapes():
  key = jax.eval_shape(lambda: jax.random.key(0))
  image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  encoder = models.make("resnet10", width=8)
  for coarse in densepose.COARSE:
    net = detection.detector(encoder, 1, "fpn", further=densepose.dense_head(coarse=coarse))
    shapes = {name: leaf.shape for name, leaf in flat(jax.eval_shape(net.init, key, image).params).items()}
    assert shapes["dense/conv1/kernel"] == (3, 3, 256, 512) and shapes["dense/conv8/kernel"] == (
      3,
      3,
      512,
      512,
    )
    assert "dense/conv9/kernel" not in shapes
    widths = {name: shapes[f"dense/{name}/kernel"] for name in ("coarse", "fine", "u", "v")}
    assert widths == {"coarse": (4, 4, 512, coarse)} | dict.fromkeys(("fine", "u", "v"), (4, 4, 512, 25))
    decoder = [name for name in shapes if name.startswith("decoder") and name.endswith("kernel")]
    assert len(decoder) == 1 + 1 + 2 + 3 + 1 and shapes["decoder/merge/kernel"] == (1, 1, 256, 256)


def test_options_out_of_range_are_refused():
  with pytest.raises(ValueError, match="config.method.coarse is 14; use 2"):
    densepose.dense_head(coarse=14)
  with pytest.raises(ValueError, match="config.method.dense_rois is 0; use a positive"):
    densepose.dense_head(rois=0)
  assert len(NAMES) == 5


def test_outputs_are_those_of_torch():
  """The transposed convolution and the upsampling."""
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  head = models.network(densepose.DenseHead(2, 6, 1))
  x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(np.float32)
  weights = head.init(jax.random.key(0), jnp.asarray(x))
  found, _ = head.apply(weights, jnp.asarray(x))
  tensor = lambda leaf, *axes: torch.tensor(np.asarray(leaf).transpose(axes or range(np.ndim(leaf))).copy())
  conv, fine = (weights.params[name] for name in ("conv1", "fine"))
  nn = torch.nn.functional
  hidden = nn.conv2d(
    tensor(x, 0, 3, 1, 2), tensor(conv["kernel"], 3, 2, 0, 1), tensor(conv["bias"]), padding=1
  )
  y = nn.conv_transpose2d(
    hidden.relu(), tensor(fine["kernel"], 2, 3, 0, 1), tensor(fine["bias"]), stride=2, padding=1
  )
  y = nn.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False).numpy().transpose(0, 2, 3, 1)
  np.testing.assert_allclose(found.fine, y, atol=1e-5)


def test_the_decoder_sums_levels_at_the_resolution_of_the_finest():
  """A map of odd sides, and a coarse level that reaches the result after as many stages as its level says."""
  maps = tuple(jnp.ones((1, side, side + 2, 4)) for side in (13, 7, 4, 2))
  net = models.network(densepose.Decoder(4))
  weights = net.init(jax.random.key(0), maps)
  found, _ = net.apply(weights, maps)
  assert found.shape == (1, 13, 15, 4)
  silent = jax.tree.map(jnp.zeros_like, weights.params["level5_conv3"])
  changed, _ = net.apply(weights._replace(params=weights.params | {"level5_conv3": silent}), maps)
  assert np.abs(changed - found).max() > 1e-3
