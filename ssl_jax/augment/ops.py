"""The ten operations of SimCLR's figure 4 on one image: f32[H, W, 3] in [0, 1] to the same shape and range.

`random_x(key, image, ...)` draws the amounts and calls the deterministic function (`adjust_x`, `flip` and so
on). All of them work under jit and vmap. Crop and resize, with or without flip, are in crops.py; the tenth
"operation" is the original image.
`definition` is "pt" for PyTorch's operation or "tf" for TensorFlow's; they differ, and papers publish
different strengths for them. Any other value raises ValueError. The recipes do not call these functions but
those of colour.py and blur.py, which work on planes.
Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", figure 4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.augment import blur, colour
from ssl_jax.augment.colour import DEFINITIONS, Jitter
from ssl_jax.augment.crops import image_to_planes, planes_to_image
from ssl_jax.config.checked import nearest


def flip(image: jax.Array) -> jax.Array:
  """Mirrors left and right."""
  return image[:, ::-1]


def random_flip(key: jax.Array, image: jax.Array, *, p: float = 0.5) -> jax.Array:
  """Mirrors left and right with probability `p`."""
  return jnp.where(jax.random.bernoulli(key, p), flip(image), image)


def grayscale(image: jax.Array, *, definition: str = "pt") -> jax.Array:
  """Colour drop: sets all channels to the luma (0.299, 0.587, 0.114; tf: 0.2989, 0.5870, 0.1140)."""
  return _on_planes(colour.grayscale, image, _checked(definition))


def random_grayscale(
  key: jax.Array, image: jax.Array, *, p: float = 0.2, definition: str = "pt"
) -> jax.Array:
  """Converts to grayscale with probability `p`."""
  return jnp.where(jax.random.bernoulli(key, p), grayscale(image, definition=definition), image)


def adjust_brightness(image: jax.Array, factor) -> jax.Array:
  """Returns factor x image, as in PyTorch and in the TensorFlow code of SimCLR v2."""
  return _on_planes(colour.scale_brightness, image, factor)


def shift_brightness(image: jax.Array, shift) -> jax.Array:
  """Returns image + shift, as in the TensorFlow code of SimCLR v1."""
  return _on_planes(colour.shift_brightness, image, shift)


def adjust_contrast(image: jax.Array, factor, *, definition: str = "pt") -> jax.Array:
  """Blends the image with its mean luma (pt) or with each channel's own mean (tf)."""
  return _on_planes(colour.contrast, image, factor, _checked(definition))


def adjust_saturation(image: jax.Array, factor, *, definition: str = "pt") -> jax.Array:
  """Blends each pixel with its luma (pt) or multiplies the S of HSV (tf)."""
  return _on_planes(colour.saturation, image, factor, _checked(definition))


def adjust_hue(image: jax.Array, turns) -> jax.Array:
  """Rotates the H of HSV by `turns` of a full circle."""
  return _on_planes(colour.hue, image, turns)


def adjust_jitter(
  image: jax.Array, draw: Jitter, *, definition: str = "pt", additive: bool = False
) -> jax.Array:
  """Applies brightness, contrast, saturation and hue in the order of `draw`.

  With `additive`, brightness is a shift as in SimCLR v1 instead of a factor.
  """
  return planes_to_image(
    colour.jitter(image_to_planes(image), draw, definition=_checked(definition), additive=additive)
  )


def random_jitter(
  key: jax.Array,
  image: jax.Array,
  *,
  brightness: float = 0.8,
  contrast: float = 0.8,
  saturation: float = 0.8,
  hue: float = 0.2,
  p: float = 0.8,
  definition: str = "pt",
  additive: bool = False,
) -> jax.Array:
  """Applies colour jitter with probability `p`; the defaults are SimCLR's at strength 1."""
  draw = colour.sample_jitter(
    key, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=p, additive=additive
  )
  return adjust_jitter(image, draw, definition=definition, additive=additive)


def rotate(image: jax.Array, quarters) -> jax.Array:
  """Rotates a square image anticlockwise by exactly `quarters` x 90 degrees; `quarters` may be traced.

  Raises: ValueError if the image is not square.
  """
  height, width, _ = image.shape
  if height != width:
    raise ValueError(f"rotate needs a square image, but this one is {height} x {width}; crop it first")
  image = jnp.where(quarters % 2 == 1, image.swapaxes(0, 1)[::-1], image)
  return jnp.where(quarters % 4 >= 2, image[::-1, ::-1], image)


def random_rotate(key: jax.Array, image: jax.Array) -> jax.Array:
  """Rotates by 90, 180 or 270 degrees with equal probability."""
  return rotate(image, jax.random.randint(key, (), 1, 4))


def cutout(image: jax.Array, row, column, *, side: int, fill: float = 0.0) -> jax.Array:
  """Sets a square of `side` pixels centred at (row, column) to `fill`, as far as it lies in the image."""
  height, width, _ = image.shape
  inside = lambda at, center: (at >= center - side // 2) & (at < center - side // 2 + side)
  hole = inside(jnp.arange(height), row)[:, None] & inside(jnp.arange(width), column)[None]
  return jnp.where(hole[:, :, None], fill, image)


def random_cutout(key: jax.Array, image: jax.Array, *, share: float = 0.5, fill: float = 0.0) -> jax.Array:
  """Applies `cutout` with side `share` x height and a uniform centre. The paper gives no size; 0.5 here."""
  height, width, _ = image.shape
  row, column = (jax.random.randint(k, (), 0, n) for k, n in zip(jax.random.split(key), (height, width)))
  return cutout(image, row, column, side=max(1, round(share * height)), fill=fill)


def add_noise(image: jax.Array, noise: jax.Array) -> jax.Array:
  """Adds `noise`, f32[H, W, 3], and clips to [0, 1]."""
  return colour.clip(image + noise)


def random_noise(key: jax.Array, image: jax.Array, *, sigma: float = 0.1) -> jax.Array:
  """Adds independent noise N(0, sigma^2) to every value. The paper gives no sigma; 0.1 here."""
  return add_noise(image, sigma * jax.random.normal(key, image.shape))


def gaussian_blur(image: jax.Array, sigma, *, definition: str = "pt", max_sigma: float = 2.0) -> jax.Array:
  """Blurs with a Gaussian of standard deviation `sigma` pixels; 0 changes nothing.

  "pt" is Pillow's GaussianBlur: three passes of an extended box filter with repeated edge pixels. "tf" is
  SimCLR's: a Gaussian truncated at 5% of the height on either side (23 taps at 224 pixels), with zeros
  outside the image, so the borders darken.

  Args:
    sigma: f32[], at most `max_sigma`, which fixes the number of taps that "pt" compiles; may be traced.
  """
  return planes_to_image(
    blur.gaussian_blur(image_to_planes(image), sigma, definition=_checked(definition), max_sigma=max_sigma)
  )


def random_gaussian_blur(
  key: jax.Array,
  image: jax.Array,
  *,
  p: float = 0.5,
  sigma: tuple[float, float] = (0.1, 2.0),
  definition: str = "pt",
) -> jax.Array:
  """Blurs with probability `p`, with a standard deviation in pixels that is uniform in the range `sigma`."""
  drawn = blur.sample_blur(key, p=p, sigma=sigma)
  return gaussian_blur(image, drawn, definition=definition, max_sigma=sigma[1])


def sobel(image: jax.Array) -> jax.Array:
  """Returns the edge strength sqrt(gx^2 + gy^2) of each channel, divided by its maximum over the image.

  The image is mirrored at its borders, as in TensorFlow's sobel_edges. The paper does not state how it scales
  the result; here the maximum is taken over all channels.
  """
  padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
  smooth = lambda x, axis: _shifted(x, 0, axis) + 2 * _shifted(x, 1, axis) + _shifted(x, 2, axis)
  slope = lambda x, axis: _shifted(x, 2, axis) - _shifted(x, 0, axis)
  strength = jnp.hypot(slope(smooth(padded, 0), 1), slope(smooth(padded, 1), 0))
  return strength / jnp.maximum(strength.max(), 1e-12)


def _shifted(x: jax.Array, by: int, axis: int) -> jax.Array:
  return jax.lax.slice_in_dim(x, by, x.shape[axis] - 2 + by, axis=axis)


def _on_planes(function, image: jax.Array, *amounts) -> jax.Array:
  return planes_to_image(function(image_to_planes(image), *amounts))


def _checked(definition: str) -> str:
  if definition not in DEFINITIONS:
    raise ValueError(f"unknown definition {definition!r}{nearest(definition, DEFINITIONS)}")
  return definition
