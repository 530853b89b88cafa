"""The published recipes: options are keyword-only and the defaults are the published values.

Each function returns a `View`, which makes one view of one image; for two views that are drawn in different
ways see pairs.py. No recipe normalises by colour means
and standard deviations; the model does that. With `crop=False` the host has already cropped the views and the
recipe does everything else, including the flip.

Where a published recipe ends with the flip, it is done here while cropping, which costs nothing: mirroring
commutes with every colour operation and with a symmetric blur.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.augment import colour, crops, ops, randaugment
from ssl_jax.augment.blur import gaussian_blur, sample_blur
from ssl_jax.core import Key
from ssl_jax.models.normalize import NORMALIZE, Normalization

View = Callable[[Key, jax.Array], jax.Array]  # uint8 or f32 [H, W, 3] -> f32[size, size, 3] in [0, 1]
Scale = tuple[float, float]  # least and greatest area of a crop, as fractions of the image's area
Definition = Literal["pt", "tf"]


def moco_v1(*, size: int = 224, scale: Scale = (0.2, 1.0), crop: bool = True) -> View:
  """MoCo v1: crop -> grayscale (p 0.2) -> jitter -> flip.

  The jitter is always applied and has the strengths (0.4, 0.4, 0.4, 0.4).
  Source: He et al. 2020, released code.
  """

  def colours(key, planes):
    gray_key, jitter_key = jax.random.split(key)
    planes = colour.grayscale_if(jax.random.bernoulli(gray_key, 0.2), planes, "pt")
    draw = colour.sample_jitter(jitter_key, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4)
    return colour.jitter(planes, draw, definition="pt")

  return view_of(cropper_of(size, scale, "pt", crop), colours)


def moco_v2(
  *,
  size: int = 224,
  scale: Scale = (0.2, 1.0),
  strength: float = 1.0,
  grayscale: float = 0.2,
  blur: float = 0.5,
  turns: bool = False,
  crop: bool = True,
) -> View:
  """MoCo v2: crop -> jitter (p 0.8) -> grayscale (p 0.2) -> blur (p 0.5) -> flip.

  The jitter has the strengths (0.4, 0.4, 0.4, 0.1) x `strength`, and the standard deviation of the blur is
  uniform from 0.1 to 2 pixels.

  Args:
    grayscale, blur: their probabilities, in [0, 1].
    turns: turn the view by a random number of quarter turns, for images without an up and a down.
  Raises: ValueError for a probability that is out of range, or a negative strength.
  Source: Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning" ("aug+"), released code.
  """
  if not 0 <= grayscale <= 1 or not 0 <= blur <= 1 or strength < 0:
    raise ValueError(
      f"config.augment: grayscale {grayscale} and blur {blur} must lie in [0, 1], and strength {strength} "
      "must not be negative"
    )
  others, hue = 0.4 * strength, 0.1 * strength

  def rest(key, planes):
    jitter_key, gray_key, blur_key, *turn_keys = jax.random.split(key, 3 + turns)
    draw = colour.sample_jitter(
      jitter_key, brightness=others, contrast=others, saturation=others, hue=hue, p=0.8
    )
    planes = colour.jitter(planes, draw, definition="pt")
    planes = colour.grayscale_if(jax.random.bernoulli(gray_key, grayscale), planes, "pt")
    if blur:
      planes = gaussian_blur(planes, sample_blur(blur_key, p=blur), definition="pt", max_sigma=2.0)
    for turn_key in turn_keys:
      quarters = jax.random.randint(turn_key, (), 0, 4)
      planes = ops.rotate(planes.transpose(1, 2, 0), quarters).transpose(2, 0, 1)
    return planes

  return view_of(cropper_of(size, scale, "pt", crop), rest)


def simclr(
  *,
  size: int = 224,
  scale: Scale = (0.08, 1.0),
  strength: float = 1.0,
  blur: bool = True,
  definition: Definition = "tf",
  brightness: Literal["v1", "v2"] = "v1",
  crop: bool = True,
) -> View:
  """SimCLR: crop -> flip -> jitter (p 0.8) -> grayscale (p 0.2) -> blur (p 0.5).

  Crops are bicubic. The jitter has the strengths (0.8, 0.8, 0.8, 0.2) x `strength`, and the standard
  deviation of the blur is uniform from 0.1 to 2 pixels. For CIFAR-10 the paper sets strength=0.5, blur=False
  and size=32.

  Args:
    definition: "tf" is the released code, with TensorFlow's crop sampler, colour operations, blur kernel and
      resize without antialiasing; "pt" uses torchvision's and Pillow's counterparts of all four.
    brightness: how "tf" changes the brightness: "v1" adds a shift; "v2", an option of the same code,
      multiplies by a factor.
  Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning", appendix A, and released code.
  """
  additive = definition == "tf" and brightness == "v1"

  def rest(key, planes):
    jitter_key, gray_key, blur_key = jax.random.split(key, 3)
    draw = colour.sample_jitter(
      jitter_key,
      brightness=0.8 * strength,
      contrast=0.8 * strength,
      saturation=0.8 * strength,
      hue=0.2 * strength,
      p=0.8,
      additive=additive,
    )
    planes = colour.jitter(planes, draw, definition=definition, additive=additive)
    planes = colour.grayscale_if(jax.random.bernoulli(gray_key, 0.2), planes, definition)
    if not blur:
      return planes
    return gaussian_blur(planes, sample_blur(blur_key), definition=definition, max_sigma=2.0)

  cropper = cropper_of(size, scale, definition, crop, method="bicubic", antialias=definition == "pt")
  return view_of(cropper, rest)


def supervised(
  *,
  size: int = 224,
  scale: Scale = (0.08, 1.0),
  sampler: Literal["pt", "tf", "byol"] = "pt",
  method: Literal["bilinear", "bicubic"] = "bilinear",
  antialias: bool = True,
  crop: bool = True,
) -> View:
  """Crop -> flip, for supervised training and linear probes.

  SimCLR's linear probe uses sampler="tf", method="bicubic" and antialias=False; MAE's uses sampler="byol" and
  method="bicubic".
  """
  cropper = cropper_of(size, scale, sampler, crop, method=method, antialias=antialias)
  return view_of(cropper, lambda key, planes: planes)


def finetune(
  *,
  size: int = 224,
  scale: Scale = (0.08, 1.0),
  magnitude: float = 9.0,
  erase: float = 0.25,
  normalize: Normalization = "imagenet",
  crop: bool = True,
) -> View:
  """Fine-tuning: crop (bicubic) -> flip -> RandAugment (two of 15 operations, p 0.5 each) -> random erasing.

  Args:
    magnitude: of RandAugment, in [0, 10]; noise with standard deviation 0.5 is added to it. 0 disables
      RandAugment.
    erase: probability of erasing a rectangle, in [0, 1].
    normalize: the encoder's normalisation of pixels; erased pixels are N(0, 1) after it.
  Raises: ValueError if `magnitude` or `erase` is out of range.
  Source: He et al. 2022, table 9, as timm's rand-m9-mstd0.5-inc1 with random erasing in "pixel" mode.
  """
  if not 0 <= magnitude <= 10 or not 0 <= erase <= 1:
    raise ValueError(f"config.augment: magnitude {magnitude} must lie in [0, 10] and erase {erase} in [0, 1]")
  mean, std = NORMALIZE[normalize]

  def rest(key, planes):
    rand_key, erase_key = jax.random.split(key)
    planes = randaugment.rand_augment(rand_key, planes, magnitude=magnitude) if magnitude else planes
    return randaugment.random_erase(erase_key, planes, p=erase, mean=mean, std=std) if erase else planes

  return view_of(cropper_of(size, scale, "pt", crop, method="bicubic"), rest)


def none(*, size: int = 224, scale: Scale = (1.0, 1.0), crop: bool = True) -> View:
  """No augmentation: the largest centre square, resized to `size` if necessary. `scale` is ignored."""
  return lambda key, image: crops.evaluation_view(image, size=size, crop_ratio=1.0)


def padded_crop(*, size: int = 32, pad: int = 4, flip: bool = True) -> View:
  """Pad with `pad` black pixels on each side -> random window of `size` pixels, without a resize -> flip.

  This is the usual augmentation of CIFAR. With pad=0 it is the random crop of the pretext tasks, whose
  patches must keep their scale.

  Raises: ValueError, when called, if the padded image is smaller than `size`.
  Source: He et al. 2016 (pad 4); Noroozi & Favaro 2016, Zhang et al. 2016 (pad 0).
  """
  check_views(size, (1.0, 1.0))

  def view(key: Key, image: jax.Array) -> jax.Array:
    padded = jnp.pad(crops.to_float(image), ((pad, pad), (pad, pad), (0, 0)))
    room = [side - size for side in padded.shape[:2]]
    if min(room) < 0:
      raise ValueError(
        f"config.augment.size {size} does not fit an image of {image.shape[0]} x {image.shape[1]} with pad "
        f"{pad}; use config.data.size {size} or more"
      )
    down_key, across_key, flip_key = jax.random.split(key, 3)
    start = [jax.random.randint(k, (), 0, r + 1) for k, r in zip((down_key, across_key), room)]
    window = jax.lax.dynamic_slice(padded, (*start, 0), (size, size, 3))
    return ops.random_flip(flip_key, window) if flip else window

  return view


class HostCrop(NamedTuple):
  """How the host must cut the crops of a recipe."""

  sampler: str  # a name in crops.SAMPLERS
  method: str  # "bilinear" or "bicubic"
  antialias: bool


def host_crop(name: str, options: Mapping[str, Any]) -> HostCrop:
  """Returns the definition of the crops of the recipe `name` for a host that cuts them.

  Args:
    options: all options of the recipe.
  Raises: ValueError for a recipe that does not begin with a random-resized crop of each view by itself.
  """
  if name in ("moco_v1", "moco_v2"):
    return HostCrop("pt", "bilinear", True)
  if name == "finetune":
    return HostCrop("pt", "bicubic", True)
  if name == "simclr":
    return HostCrop(options["definition"], "bicubic", options["definition"] == "pt")
  if name == "supervised":
    return HostCrop(options["sampler"], options["method"], options["antialias"])
  raise ValueError(
    f"config.data.crop is 'host', but the augmentation {name!r} does not begin with random-resized crops, "
    "which is all that the host can cut; use config.data.crop='device'"
  )


VIEWS = {f.__name__: f for f in (moco_v1, moco_v2, simclr, supervised, finetune, padded_crop, none)}


def view_of(cropper: Callable, rest: Callable) -> View:
  """A view of what `rest` (key, planes) makes of what `cropper` (key, image) cuts out."""

  def view(key: Key, image: jax.Array) -> jax.Array:
    crop_key, rest_key = jax.random.split(key)
    return crops.planes_to_image(rest(rest_key, cropper(crop_key, image)))

  return view


def cropper_of(
  size: int,
  scale: Scale,
  sampler: str,
  crop: bool,
  *,
  method: str = "bilinear",
  antialias: bool = True,
  p_flip: float = 0.5,
) -> Callable:
  """Returns a function (key, image) -> planes f32[3, size, size], flipped with probability `p_flip`.

  It crops the image unless `crop` is false, when the host has done so.
  """
  check_views(size, scale)

  def cropped(key: Key, image: jax.Array) -> jax.Array:
    box_key, flip_key = jax.random.split(key)
    box = crops.SAMPLERS[sampler](box_key, *image.shape[:2], scale=scale)
    return crops.crop_planes(
      image,
      box,
      (size, size),
      method=method,
      antialias=antialias,
      flip=jax.random.bernoulli(flip_key, p_flip),
    )

  def flipped(key: Key, image: jax.Array) -> jax.Array:
    if image.shape != (size, size, 3):
      raise ValueError(
        f"crop=False takes views of [{size}, {size}, 3] that the host has cropped, not "
        f"{list(image.shape)}; set size={image.shape[0]} or crop=True"
      )
    planes = crops.image_to_planes(image)
    return jnp.where(jax.random.bernoulli(jax.random.split(key)[1], p_flip), planes[:, ::-1], planes)

  return cropped if crop else flipped


def check_views(size: int, scale: Scale) -> None:
  """Raises ValueError for a size or a scale that is out of range."""
  if size < 1:
    raise ValueError(f"config.augment.size is {size}; use at least 1")
  if not 0 < scale[0] <= scale[1] <= 1:
    raise ValueError(
      f"config.augment.scale is {scale}; fractions of the area must satisfy 0 < least <= greatest <= 1"
    )
