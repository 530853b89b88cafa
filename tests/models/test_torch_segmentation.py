"""Logits, losses and gradients of the segmentation networks equal those of independent PyTorch modules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import models
from ssl_jax.models import network, segmentation
from ssl_jax.models.resnet import ResNet

torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
from tests.models import torch_segmentation as theirs  # noqa: E402
from tests.models.test_segmentation import random_weights  # noqa: E402

CLASSES, WIDTH = 5, 4
VIT = dict(width=16, depth=4, heads=2, patch=4, positions="learned", relative_positions=True)


def resnet(**options) -> models.Network:
  return network(ResNet((1, 1, 2, 2), True, width=WIDTH, **options))


def stages(strides, dilations) -> theirs.DilatedResNet:
  """Strides per stage; dilations of the first and of the other blocks of a stage."""
  return theirs.DilatedResNet(
    WIDTH,
    [[stride, 1][:depth] for stride, depth in zip(strides, (1, 1, 2, 2))],
    [list(pair)[:depth] for pair, depth in zip(dilations, (1, 1, 2, 2))],
  )


def fcn():
  """MoCo's: the last stage keeps stride 16, and all its 3x3 convolutions have dilation 2."""
  ours = segmentation.segmenter(
    resnet(output_stride=16, dilate="all"), CLASSES, "fcn", channels=8, dilation=6
  )
  encoder = stages((1, 2, 2, 1), ((1, 1), (1, 1), (1, 1), (2, 2)))
  head = theirs.FCNHead(theirs.FCN(32 * WIDTH, 8, CLASSES, 2, 6))
  return ours, lambda shapes: theirs.Segmenter(encoder, head), (97, 129)


def fcn_d8():
  """MMSegmentation's: dilations 2 and 4, and half of that in the first block of a stage."""
  ours = segmentation.segmenter(
    resnet(output_stride=8), CLASSES, "fcn_d8", channels=8, auxiliary_channels=6, dropout=0.0
  )
  encoder = stages((1, 2, 1, 1), ((1, 1), (1, 1), (1, 2), (2, 4)))
  head = theirs.FCNHead(theirs.FCN(32 * WIDTH, 8, CLASSES, 2, 1, True), theirs.FCN(16 * WIDTH, 6, CLASSES))
  return ours, lambda shapes: theirs.Segmenter(encoder, head), (65, 49)


def upernet():
  ours = segmentation.segmenter(
    models.make("vit", **VIT), CLASSES, "upernet", channels=12, auxiliary_channels=6, dropout=0.0
  )
  make = lambda shapes: theirs.Segmenter(
    theirs.TappedViT(shapes, (0, 1, 2, 3), 2, 4), theirs.UPerNet(16, 12, 6, CLASSES)
  )
  return ours, make, (20, 28)


def leaves(tree) -> dict:
  return {tuple(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def statistics(model_state) -> dict:
  """Our running statistics by the path of their layer, without the name of the collection."""
  return {
    tuple(part for part in path if part != "batch_stats"): leaf for path, leaf in leaves(model_state).items()
  }


@functools.cache
def networks(make):
  """(our network, its weights, the module with the same weights, images, labels)."""
  ours, build, size = make()
  rng = np.random.default_rng(1)
  images = rng.random((3, *size, 3), np.float32)
  labels = np.where(rng.random((3, *size)) < 0.2, 255, rng.integers(0, CLASSES, (3, *size)))
  weights = random_weights(ours, images)
  shapes = jax.tree.map(lambda leaf: leaf.shape, weights.params["encoder"])
  module = build(shapes)
  theirs.fill(module, leaves(weights.params) | statistics(weights.model_state))
  return ours, weights, module, images, labels


HEADS = pytest.mark.parametrize("make", [fcn, fcn_d8, upernet], ids=lambda make: make.__name__)


@HEADS
def test_logits_are_pytorchs(make):
  ours, weights, module, images, _ = networks(make)
  found, _ = jax.jit(ours.apply)(weights, images)
  with torch.no_grad():
    expected, _ = module.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
  np.testing.assert_allclose(found.logits, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
  assert found.auxiliary is None and np.abs(found.logits).max() > 0.1


def loss(ours, align_corners, weights, images, labels):
  """The method's loss, as in `torch_segmentation.loss`."""
  output, _ = ours.apply(weights, images, train=True, key=jax.random.key(0))
  total, valid = jnp.zeros(()), labels != 255
  for weight, logits in zip((1.0, 0.4), output):
    if logits is not None:
      wide = segmentation.upsample(logits, labels.shape[1:], align_corners)
      values = optax.softmax_cross_entropy_with_integer_labels(wide, jnp.where(valid, labels, 0))
      total += weight * values.mean(where=valid)
  return total


@HEADS
def test_loss_and_gradients_of_a_training_step_are_pytorchs(make):
  ours, weights, module, images, labels = networks(make)
  align_corners = segmentation.HEADS[make.__name__].align_corners
  compute = lambda params: loss(ours, align_corners, weights._replace(params=params), images, labels)
  value, gradients = jax.jit(jax.value_and_grad(compute))(weights.params)
  module.train().zero_grad()
  outputs = module(torch.from_numpy(images).permute(0, 3, 1, 2))
  expected = theirs.loss(outputs, torch.from_numpy(labels), align_corners)
  expected.backward()
  np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
  moved = 0
  for path, leaf in leaves(gradients).items():
    wanted = theirs.gradient(module, path, leaf.shape)
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(leaf, wanted, rtol=1e-3, atol=2e-4 * largest + 1e-6, err_msg=str(path))
    moved += largest > 1e-5
  assert moved > 0.9 * len(leaves(gradients))
