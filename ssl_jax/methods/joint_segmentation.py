"""Joint training of semantic segmentation and of the reconstruction of masked images on one encoder: the
starting point of test-time training on video streams.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax.abilities import Adaptable, Masking, Pyramid, Reconstruction, Restorer, Segmenter
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.methods import segmentation as plain
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, patches, readers, segmentation, stack, visibility
from ssl_jax.models.normalize import NORMALIZE, denormalize, fill_padding, normalize

ABILITIES = (Pyramid, Segmenter, Restorer, Adaptable, Masking)
PROBE = 8  # patches on a side of the image that tells the resolution of the logits


class Joint(NamedTuple):
  """An encoder of four channels with two heads. Parameters and state have the keys "encoder", "head" and
  "decoder".
  """

  main: plain.Parts  # encoder and "head": classes
  reader: Network  # the encoder: images of four channels -> the maps that the heads take
  head: Network
  decoder: Network  # the other head: maps -> pixels
  stride: int  # side in pixels of the squares whose pixels one place of the decoder predicts
  kind: str  # the encoder's normalisation
  patch: int
  mask_ratio: float
  loss_on: str
  weight: float


def make(
  encoder: Network,
  data: DataSpec,
  *,
  head: Literal["fcn", "fcn_d8", "upernet", "linear"] = "upernet",
  taps: tuple[int, ...] = (),
  channels: int = 0,
  auxiliary: float = 0.4,
  mask_ratio: float = 0.8,
  mask_patch: int = 16,
  loss_on: Literal["all", "masked"] = "all",
  weight: float = 1.0,
) -> Method:
  """Cross-entropy of the classes plus the mean squared error of the pixels of masked images.

  The encoder has a fourth input channel, the visibility; masked patches are zero after normalisation. The
  head of the reconstruction has the architecture of that of the segmentation, and predicts the normalised
  pixels of the square that each of its places covers: 48 numbers with a head at a quarter of the resolution.
  With config.start.workdir and config.start.parts=("encoder", "head"), a trained segmenter goes on; its
  weights for the fourth channel start at zero. At test time the encoder and the head of the reconstruction
  adapt, in evaluation mode.

  Args:
    encoder: the image network, without BatchNorm: masked images have other statistics than whole ones.
    data: as of method 'segmentation'.
    head, taps, channels, auxiliary: as of method 'segmentation', for both heads; the reconstruction has no
      auxiliary head.
    mask_ratio: fraction of the patches that are masked.
    mask_patch: side of a masked patch in pixels.
    loss_on: "all": the error of all pixels, as released; "masked": that of the masked ones.
    weight: of the reconstruction in training.
  Metrics: `pixel_accuracy` as of method 'segmentation'; `restoration`, the error, which is about 1 for a
    prediction of the mean colour of natural images with normalize="imagenet".
  Raises: ValueError as method 'segmentation', for an encoder with BatchNorm, or an option out of range.
  Source: Wang et al. 2023, sections 3 and 4 and released code, with plain heads in the place of Mask2Former.
  """
  plain.check(data, auxiliary, "joint_segmentation")
  seeing = visibility.seeing(encoder)
  net = _networks(seeing, data.num_classes, head, taps, channels, auxiliary)
  joint = net._replace(patch=mask_patch, mask_ratio=mask_ratio, loss_on=loss_on, weight=weight)
  _check(encoder, joint)
  bound = functools.partial
  encode, maps = readers(seeing)
  reconstruct = bound(_reconstruct, joint)
  abilities = {
    Pyramid: Pyramid(maps),
    Segmenter: Segmenter(bound(_predict, joint), plain.divisor_of(encoder)),
    Restorer: Restorer(reconstruct),
    Adaptable: Adaptable(
      make_task=lambda key, batch: (batch["image"], _sample_hidden(joint, key, batch["image"])),
      loss=bound(_errors, joint),
      predict=bound(_predict_padded, joint),
      trainable=("encoder", "decoder"),
      reconstruct=reconstruct,
    ),
    Masking: Masking(bound(_hide, joint), trainable=("encoder",)),
  }
  return Method(bound(_init, joint), bound(_loss, joint), keep_extra, encode, abilities)


def _networks(seeing: Network, classes: int, head: str, taps, channels: int, auxiliary: float) -> Joint:
  """Both networks on the encoder of four channels; what else a Joint holds is left at its defaults."""
  options: dict[str, Any] = {"taps": taps} if taps else {}
  options |= {"channels": channels} if channels else {}
  reader, top = segmentation.reader_and_head(seeing, classes, head, **options)
  main = stack(reader, top)
  side = PROBE * max(plain.divisor_of(seeing), 16)
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  weights = jax.eval_shape(main.init, jax.random.key(0), image)
  stride = side // jax.eval_shape(main.apply, weights, image)[0].logits.shape[1]
  more = {"auxiliary_channels": 0} if head in ("fcn_d8", "upernet") else {}
  _, decoder = segmentation.reader_and_head(seeing, 3 * stride**2, head, **options, **more)
  parts = plain.Parts(main, segmentation.HEADS[head].align_corners, auxiliary)
  kind = getattr(seeing.module, "normalize", "none")
  return Joint(parts, reader, top, decoder, stride, kind, 16, 0.8, "all", 1.0)


def _init(joint: Joint, key, batch: Batch) -> Init:
  main_key, decoder_key = jax.random.split(key)
  main = joint.main.net.init(main_key, batch["image"])
  maps, _ = joint.reader.apply(_part(main, "encoder"), batch["image"])
  decoder = joint.decoder.init(decoder_key, maps)
  return Init(*({**part, "decoder": other} for part, other in zip(main, decoder)))


def _loss(joint: Joint, params, model_state, extra, batch: Batch, key):
  encoder_key, hide_key, head_key, decoder_key = jax.random.split(key, 4)
  weights, images = Weights(params, model_state), batch["image"]
  hidden = _sample_hidden(joint, hide_key, images)
  masked = visibility.hide(images, hidden, joint.patch, joint.kind)
  # An image and its masked copy lie side by side, so that they stay on the image's device.
  both = jnp.stack([visibility.whole(images), masked], 1)
  maps, encoder = joint.reader.apply(
    _part(weights, "encoder"), both.reshape(-1, *both.shape[2:]), train=True, key=encoder_key
  )
  maps = jax.tree.map(lambda leaf: leaf.reshape(len(images), 2, *leaf.shape[1:]), maps)
  seen, restored = (jax.tree.map(lambda leaf, i=i: leaf[:, i], maps) for i in (0, 1))
  out, head = joint.head.apply(_part(weights, "head"), seen, train=True, key=head_key)
  pixels, decoder = joint.decoder.apply(_part(weights, "decoder"), restored, train=True, key=decoder_key)
  value, found = plain.score(joint.main, out, batch["mask"])
  errors = _error(joint, _at_pixels(joint, pixels.logits, images), images, hidden)
  found |= {"restoration": Mean.of(errors)}
  state = {"encoder": encoder, "head": head, "decoder": decoder}
  return value + joint.weight * errors.mean(), Aux(state, metrics=found)


def _part(weights: Weights, name: str) -> Weights:
  return Weights(weights.params[name], weights.model_state[name])


def _main(weights: Weights) -> Weights:
  return Weights(*({name: part[name] for name in ("encoder", "head")} for part in weights))


def _sample_hidden(joint: Joint, key, images: jax.Array) -> jax.Array:
  size = images.shape[1], images.shape[2]
  return visibility.sample_hidden(key, len(images), size, patch=joint.patch, mask_ratio=joint.mask_ratio)


def _restore(joint: Joint, weights: Weights, images: jax.Array, hidden: jax.Array) -> jax.Array:
  """f32[B, H, W, 3]: the predicted normalised pixels, in evaluation mode."""
  masked = visibility.hide(images, hidden, joint.patch, joint.kind)
  maps, _ = joint.reader.apply(_part(weights, "encoder"), masked)
  return _at_pixels(joint, joint.decoder.apply(_part(weights, "decoder"), maps)[0].logits, images)


def _at_pixels(joint: Joint, logits: jax.Array, images: jax.Array) -> jax.Array:
  """f32[B, H, W, 3]: the decoder's output at the pixels of the images."""
  grid = logits.shape[1], logits.shape[2]
  rows = logits.reshape(len(images), grid[0] * grid[1], -1)
  return patches.unpatchify(rows, joint.stride, grid)[:, : images.shape[1], : images.shape[2]]


def _error(joint: Joint, predicted: jax.Array, images: jax.Array, hidden: jax.Array) -> jax.Array:
  """f32[B]: the mean squared error of the normalised pixels of each image."""
  errors = jnp.square(predicted - normalize(images, joint.kind)).mean(-1)
  if joint.loss_on == "all":
    return errors.mean((1, 2))
  counted = visibility.at_pixels(hidden, joint.patch, images.shape[1:3]).astype(errors.dtype)
  return (errors * counted).sum((1, 2)) / counted.sum((1, 2))


def _errors(joint: Joint, params, model_state, task) -> jax.Array:
  images, hidden = task
  predicted = _restore(joint, Weights(params, model_state), images, hidden)
  return _error(joint, predicted, images, hidden)


def _predict(joint: Joint, params, model_state, images):
  return plain.predict(joint.main, _main(Weights(params, model_state)), images)


def _predict_padded(joint: Joint, params, model_state, batch: Batch):
  """Logits of images that may cover only a part of their canvas, "image_size"; padding gets the mean."""
  return _predict(joint, params, model_state, _filled(joint, batch))


def _filled(joint: Joint, batch: Batch) -> jax.Array:
  images = batch["image"]
  if "image_size" in batch:
    images = fill_padding(images, batch["image_size"], NORMALIZE[joint.kind][0])
  return images


def _hide(joint: Joint, key, batch: Batch) -> Batch:
  """The images f32[B, H, W, 4] with masked patches, as they are in training."""
  images = _filled(joint, batch)
  hidden = _sample_hidden(joint, key, images)
  return {"image": visibility.hide(images, hidden, joint.patch, joint.kind)}


def _reconstruct(joint: Joint, params, model_state, images, key, *, mask_ratio: float = 0.0):
  chosen = joint._replace(mask_ratio=mask_ratio or joint.mask_ratio)
  hidden = _sample_hidden(chosen, key, images)
  predicted = _restore(chosen, Weights(params, model_state), images, hidden)
  there = visibility.at_pixels(hidden, joint.patch, images.shape[1:3])[..., None]
  predicted = jnp.clip(denormalize(predicted, joint.kind), 0, 1)
  seen = jnp.where(there, 0.5, images)
  return Reconstruction(seen, predicted, jnp.where(there, predicted, images))


def _check(encoder: Network, joint: Joint) -> None:
  if getattr(encoder.module, "norm", "group") == "batch":
    raise ValueError(
      "method 'joint_segmentation' also encodes masked images, whose statistics are others, but "
      "config.encoder.norm is 'batch'; use 'group', or a vision transformer"
    )
  if not 0 < joint.mask_ratio < 1:
    raise ValueError(
      f"config.method.mask_ratio is {joint.mask_ratio}; use a fraction between 0 and 1, such as 0.8"
    )
  if joint.patch < 1:
    raise ValueError(f"config.method.mask_patch is {joint.patch}; use a number of pixels, such as 16")
  if joint.weight <= 0:
    raise ValueError(
      f"config.method.weight is {joint.weight}; use a positive one, or method 'segmentation' without it"
    )
