"""The published recipes: options are keyword-only and the defaults are the published values.

Most functions return a `View`, which makes one view of one image. `study`, `global_local` and `adjacent`
return a `Pair`, which makes two views that are drawn in different ways. No recipe normalises by colour means
and standard deviations; the model does that. With `crop=False` the host has already cropped the views and the
recipe does everything else, including the flip.

Where a published recipe ends with the flip, it is done here while cropping, which costs nothing: mirroring
commutes with every colour operation and with a symmetric blur.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.augment import colour, crops, ops, randaugment
from ssl_jax.augment.blur import gaussian_blur, sample_blur
from ssl_jax.config.checked import nearest
from ssl_jax.core import Key
from ssl_jax.models.normalize import NORMALIZE, Normalization

View = Callable[[Key, jax.Array], jax.Array]  # uint8 or f32 [H, W, 3] -> f32[size, size, 3] in [0, 1]
Pair = Callable[[Key, jax.Array], jax.Array]  # uint8 or f32 [H, W, 3] -> f32[2, size, size, 3]
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

  return _view(_cropper(size, scale, "pt", crop), colours)


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
  Raises: ValueError for a probability that is out of range.
  Source: Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning" ("aug+"), released code.
  """

  if not 0 <= grayscale <= 1 or not 0 <= blur <= 1:
    raise ValueError(f"config.augment: grayscale {grayscale} and blur {blur} must lie in [0, 1]")
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
      planes = ops.rotate(planes.transpose(1, 2, 0), jax.random.randint(turn_key, (), 0, 4)).transpose(
        2, 0, 1
      )
    return planes

  return _view(_cropper(size, scale, "pt", crop), rest)


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

  return _view(_cropper(size, scale, definition, crop, method="bicubic", antialias=definition == "pt"), rest)


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
  cropper = _cropper(size, scale, sampler, crop, method=method, antialias=antialias)
  return _view(cropper, lambda key, planes: planes)


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

  return _view(_cropper(size, scale, "pt", crop, method="bicubic"), rest)


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
  _check(size, (1.0, 1.0))

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


def _recrop(key: Key, image: jax.Array) -> jax.Array:
  box = crops.sample_crop_tf(key, *image.shape[:2])
  return crops.crop_resize(image, box, image.shape[0], method="bicubic", antialias=False)


TRANSFORMS: dict[str, Callable[[Key, jax.Array], jax.Array]] = {
  "crop": _recrop,
  "flip": ops.random_flip,
  "grayscale": lambda key, image: ops.grayscale(image, definition="tf"),
  "jitter": functools.partial(ops.random_jitter, p=1.0, definition="tf", additive=True),
  "rotate": ops.random_rotate,
  "cutout": ops.random_cutout,
  "noise": ops.random_noise,
  "blur": functools.partial(ops.random_gaussian_blur, p=1.0, definition="tf"),
  "sobel": lambda key, image: ops.sobel(image),
}


def study(
  *, transforms: tuple[str, ...] = (), size: int = 224, scale: Scale = (0.08, 1.0), one_crop: bool = False
) -> Pair:
  """SimCLR's study of augmentations: two crops, of which only the first is changed by `transforms`, in order.

  Every transform is always applied, except that the flip has probability 1/2: the paper gives no
  probabilities for this study.

  Args:
    transforms: names in TRANSFORMS; "crop" cuts the crop once more, an area in (0.08, 1) of it.
    one_crop: both views begin as the same crop, so that without "crop" among the transforms they show the
      same pixels. The paper says that images are first cropped, not whether twice; its figure 5, in which
      colours alone reach 18.8 and crops with colours 56.3, needs one.
  Raises: ValueError for a name that is not in TRANSFORMS.
  Source: Chen et al. 2020, section 3.1 and figure 5.
  """
  for name in transforms:
    if name not in TRANSFORMS:
      raise ValueError(
        f"config.augment.transforms: no transform is called {name!r}{nearest(name, TRANSFORMS)}"
      )
  cropper = _cropper(size, scale, "tf", True, method="bicubic", antialias=False, p_flip=0.0)
  cropped = _view(cropper, lambda key, planes: planes)

  def pair(key: Key, image: jax.Array) -> jax.Array:
    first_key, second_key, *keys = jax.random.split(key, 2 + len(transforms))
    first = cropped(first_key, image)
    second = first if one_crop else cropped(second_key, image)
    for name, key in zip(transforms, keys):
      first = TRANSFORMS[name](key, first)
    return jnp.stack([first, second])

  return pair


def global_local(*, size: int = 224, scale: Scale = (0.4, 1.0), local_scale: Scale = (0.08, 0.4)) -> Pair:
  """A crop and a second crop inside it, which covers a fraction in `local_scale` of the first's area.

  Colours do not change.
  """
  sample = functools.partial(crops.sample_global_local, global_scale=scale, local_scale=local_scale)
  return _pair(sample, size, scale)


def adjacent(*, size: int = 224, scale: Scale = (0.08, 0.5)) -> Pair:
  """Two neighbouring crops of equal size that do not overlap. Colours do not change."""
  return _pair(functools.partial(crops.sample_adjacent, scale=scale), size, scale)


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
PAIRS = {f.__name__: f for f in (study, global_local, adjacent)}


def _view(cropper: Callable, rest: Callable) -> View:
  def view(key: Key, image: jax.Array) -> jax.Array:
    crop_key, rest_key = jax.random.split(key)
    return crops.planes_to_image(rest(rest_key, cropper(crop_key, image)))

  return view


def _cropper(
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
  _check(size, scale)

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


def _check(size: int, scale: Scale) -> None:
  if size < 1:
    raise ValueError(f"config.augment.size is {size}; use at least 1")
  if not 0 < scale[0] <= scale[1] <= 1:
    raise ValueError(
      f"config.augment.scale is {scale}; fractions of the area must satisfy 0 < least <= greatest <= 1"
    )


def _pair(sample: Callable, size: int, scale: Scale) -> Pair:
  _check(size, scale)

  def pair(key: Key, image: jax.Array) -> jax.Array:
    return jnp.stack([crops.crop_resize(image, box, size) for box in sample(key, *image.shape[:2])])

  return pair
