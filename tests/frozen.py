"""Backbones with published weights: ResNet-20 of akamaster (PyTorch) and ResNet-8 of MLPerf Tiny (Keras)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

from ssl_jax.abilities import Classifier
from ssl_jax.core import Weights
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.tasks.task import TaskData

NAMES = ("resnet20", "resnet8")
RIGHT = {"resnet20": 6876, "resnet8": 6539}  # of the 7,500 test images, by an independent forward pass


def backbone(folder, name: str) -> Backbone:
  """Loads the network `name` from `folder`/weights."""
  weights = {
    k: np.asarray(v, np.float32)
    for k, v in np.load(folder / f"weights/{name}_cifar10.npz").items()
    if not k.endswith("num_batches_tracked")
  }
  forward = {"resnet20": _resnet20, "resnet8": _resnet8}[name]
  method = encoder_only(forward, {Classifier: Classifier(forward)})
  return Backbone(Weights(weights, {}), method, {"backbone": name})


def test_images(folder) -> tuple[np.ndarray, np.ndarray]:
  """Returns (images uint8[7500, 32, 32, 3], labels i32[7500])."""
  mosaic = np.asarray(Image.open(folder / "cifar10/test_00.webp").convert("RGB"))
  height, width, _ = mosaic.shape
  tiles = mosaic.reshape(height // 32, 32, width // 32, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
  return tiles, np.load(folder / "cifar10/labels.npz")["test"].astype(np.int32)


def data(images: np.ndarray, labels: np.ndarray, batch_size: int = 250) -> TaskData:
  """TaskData of test images only, without padding."""

  def batches():
    for start in range(0, len(images), batch_size):
      rows = slice(start, start + batch_size)
      yield {
        "image": images[rows],
        "label": labels[rows],
        "index": np.arange(start, start + len(images[rows]), dtype=np.int32),
      }

  return TaskData(batches, batches, 10, protocol={"data": "cifar10"})


def _conv(x, kernel, stride: int = 1, padding=((1, 1), (1, 1)), layout: str = "OIHW"):
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", layout, "NHWC")
  )


def _resnet20(w, state, images):
  def norm(x, name):
    scale = w[f"{name}.weight"] / jnp.sqrt(w[f"{name}.running_var"] + 1e-5)
    shift = w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale
    return x * scale[None, None, None] + shift[None, None, None]

  x = (images - jnp.array([0.485, 0.456, 0.406])[None, None, None]) / jnp.array([0.229, 0.224, 0.225])[
    None, None, None
  ]
  x = jax.nn.relu(norm(_conv(x, w["conv1.weight"]), "bn1"))
  for stage in (1, 2, 3):
    for block in range(3):
      name, stride = f"layer{stage}.{block}", 2 if stage > 1 and not block else 1
      y = jax.nn.relu(norm(_conv(x, w[f"{name}.conv1.weight"], stride), f"{name}.bn1"))
      y = norm(_conv(y, w[f"{name}.conv2.weight"]), f"{name}.bn2")
      if stride == 2:  # take every second pixel, pad channels with zeros on both sides
        pad = (y.shape[-1] - x.shape[-1]) // 2
        x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (pad, pad)))
      x = jax.nn.relu(x + y)
  return x.mean((1, 2)) @ w["linear.weight"].T + w["linear.bias"][None]


def _resnet8(w, state, images):
  def conv(x, number, stride=1):
    name = f"conv2d_{number}" if number else "conv2d"
    return _conv(x, w[f"{name}/kernel"], stride, "SAME", "HWIO") + w[f"{name}/bias"][None, None, None]

  def norm(x, number):
    name = f"batch_normalization_{number}" if number else "batch_normalization"
    scale = w[f"{name}/gamma"] / jnp.sqrt(w[f"{name}/moving_variance"] + 1e-3)
    return (
      x * scale[None, None, None] + (w[f"{name}/beta"] - w[f"{name}/moving_mean"] * scale)[None, None, None]
    )

  x = jax.nn.relu(norm(conv(images * 255, 0), 0))
  for layer, (first, second, shortcut) in enumerate(((1, 2, None), (3, 4, 5), (6, 7, 8))):
    stride = 2 if shortcut else 1
    y = jax.nn.relu(norm(conv(x, first, stride), 2 * layer + 1))
    y = norm(conv(y, second), 2 * layer + 2)
    x = jax.nn.relu((conv(x, shortcut, stride) if shortcut else x) + y)
  x = x.mean((1, 2))
  return x @ w["dense/kernel"] + w["dense/bias"][None]
