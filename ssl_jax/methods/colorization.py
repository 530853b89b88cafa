"""Colorization: predict the colour of each location of a grey image. The task is a classification over colour
bins in which rare colours have larger weights.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.abilities import PretextExamples, PretextTask, Pyramid, Reconstruction, Restorer
from ssl_jax.core import Aux, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.methods.pretext import cielab, colour_bins
from ssl_jax.methods.pretext.pretext_template import Scores, mean_by_image
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, heads, last_map, network, readers, stack

ABILITIES = (Pyramid, PretextTask, Restorer)
STRIDE = 4  # pixels between two locations whose colours are predicted
COLOURFUL = 5.0  # an image in which no |a| or |b| exceeds this value counts as grey and has zero loss
WORST = 150  # largest error in ab in the area under the curve of errors
DISPLAYED = 60.0  # lightness of pictures that show colours only


class Colorizer(NamedTuple):
  """The network, the colours that it distinguishes, and the settings of the loss."""

  net: Network
  bins: colour_bins.Bins
  rarity: jax.Array  # f32[Q]: the weight of each bin in the loss
  sigma: float  # deviation in ab, for the encoding of a colour into its nearest bins
  temperature: float  # of the annealed mean


def make(
  encoder: Network,
  data: DataSpec,
  *,
  prior: tuple[float, ...] = (),
  smoothing: float = 5.0,
  uniform: float = 0.5,
  neighbours: int = 5,
  sigma: float = 5.0,
  temperature: float = 0.38,
) -> Method:
  """Cross-entropy against the true colour. The true colour is encoded into its nearest bins, and the loss is
  weighted by the rarity of the nearest bin.

  The input of the network is L / 100 in all three channels, in evaluation too. Use an encoder with
  `output_stride` 4 or 8; its last map is enlarged to stride 4.

  Args:
    encoder: the image network.
    data: not used; all methods have the same signature.
    prior: see `colour_bins.make_bins`; a recipe reads it with `colour_bins.read_prior`. (): all 313 colours,
      each with weight 1.
    smoothing, uniform: settings of the weights, see `colour_bins.class_weights`; uniform=1 turns rebalancing
      off.
    neighbours, sigma: see `colour_bins.make_bins` and `colour_bins.encode_colours`.
    temperature: of the annealed mean that converts a distribution to a colour.
  Metrics: `accuracy`: the fraction of locations where the nearest bin is more likely than every other one.
    `evaluate_task` adds `auc`, the area under the curve of the fraction of pixels whose ab error is below t,
    for t up to 150 (integrated exactly); `auc_rare`, with pixels weighted by 1 / prior; and `auc_grey` and
    `auc_rare_grey`, the same two areas for the prediction of grey everywhere.
  Raises: ValueError for a prior that is not a distribution over the bins or for values out of range; when
    traced, for images whose sides are not multiples of 4.
  Source: Zhang, Isola, Efros 2016. As in the released code, the colour of every fourth pixel is predicted and
    grey images have zero loss.
  """
  _check(smoothing=smoothing, uniform=uniform, sigma=sigma, temperature=temperature)
  bins = colour_bins.make_bins(prior, neighbours=neighbours)
  weights = colour_bins.class_weights(bins, uniform=uniform, smoothing=smoothing)
  rarity = jnp.asarray(weights if prior else np.ones(len(bins.prior)), jnp.float32)
  net = stack(last_map(encoder), network(heads.Linear(len(bins.centres))))
  made = Colorizer(net, bins, rarity, sigma, temperature)
  encode, maps = (_of_lightness(reader) for reader in readers(encoder))
  abilities = {
    Pyramid: Pyramid(maps),
    PretextTask: PretextTask(
      functools.partial(make_colour_task, bins), functools.partial(evaluate_colours, made)
    ),
    Restorer: Restorer(functools.partial(paint, made)),
  }
  return Method(functools.partial(_init, made), functools.partial(_loss, made), keep_extra, encode, abilities)


def _init(made: Colorizer, key, batch) -> Init:
  return Init(*made.net.init(key, cielab.lightness(batch["image"])))


def _loss(made: Colorizer, params, model_state, extra, batch, key):
  logits, model_state = predict_bins(made, params, model_state, batch["image"], train=True, key=key)
  scores = score_bins(made, logits, batch["image"])
  return scores["loss"].mean(), Aux(model_state, metrics={"accuracy": Mean.of(scores["accuracy"])})


def predict_bins(made: Colorizer, params, model_state, images: jax.Array, **training):
  """Returns (the logits f32[B, H / 4, W / 4, Q] for images f32[B, H, W, 3], the new model state).

  Raises: ValueError for sides that are not multiples of 4.
  """
  height, width = images.shape[1:3]
  if height % STRIDE or width % STRIDE:
    raise ValueError(
      f"method 'colorization' predicts the colour of every {STRIDE}th pixel; config.augment.size {height} is "
      f"not a multiple of {STRIDE}"
    )
  logits, model_state = made.net.apply(Weights(params, model_state), cielab.lightness(images), **training)
  return enlarge(logits, height // STRIDE, width // STRIDE), model_state


def score_bins(made: Colorizer, logits: jax.Array, images: jax.Array) -> Scores:
  """Returns, for each location [B, H / 4, W / 4], the weighted loss in nats, and whether the nearest bin is
  more likely than every other one.
  """
  ab = cielab.rgb_to_lab(images)[..., 1:]
  which, weight = colour_bins.encode_colours(ab[:, ::STRIDE, ::STRIDE], made.bins, sigma=made.sigma)
  colourful = (jnp.abs(ab) > COLOURFUL).any((1, 2, 3))
  loss = colour_bins.cross_entropy(logits, which, weight) * made.rarity[which[..., 0]]
  loss = jnp.where(colourful[:, None, None], loss, 0.0)
  own = jnp.take_along_axis(logits, which[..., :1], axis=-1)
  # No other bin is as likely as the own one. Counting in float32 takes a third of the time of an argmax.
  return {"loss": loss, "accuracy": (logits >= own).sum(-1, dtype=jnp.float32) == 1}


def evaluate_colours(made: Colorizer, params, model_state, images: jax.Array) -> Scores:
  """Returns the scores that the docstring of `make` lists, one value per image, f32[B]."""
  logits, found = _predict_ab(made, params, model_state, images, made.temperature)
  ab = cielab.rgb_to_lab(images)[..., 1:]
  frequency = jnp.asarray(made.bins.prior * len(made.bins.prior))
  nearest = colour_bins.encode_colours(ab, made.bins._replace(neighbours=1))[0][..., 0]
  area, grey = _area(ab, found), _area(ab, jnp.zeros_like(ab))
  rare = {"auc_rare": area / frequency[nearest], "auc_rare_grey": grey / frequency[nearest]}
  scores = score_bins(made, logits, images) | {"auc": area, "auc_grey": grey} | rare
  return {name: mean_by_image(values) for name, values in scores.items()}


def paint(made: Colorizer, params, model_state, images: jax.Array, key, *, temperature: float | None = None):
  """Returns the grey images, the predicted colours at one lightness, and the images with these colours.

  Args:
    key: not used; the prediction is deterministic.
    temperature: of the annealed mean; None: the temperature of the method.
  """
  temperature = made.temperature if temperature is None else temperature
  _, found = _predict_ab(made, params, model_state, images, temperature)
  light = cielab.rgb_to_lab(images)[..., :1]
  return Reconstruction(
    cielab.lightness(images), _painted(jnp.full_like(light, DISPLAYED), found), _painted(light, found)
  )


def make_colour_task(bins: colour_bins.Bins, key, images: jax.Array) -> PretextExamples:
  """Returns the lightness of the images, and the targets (the nearest bin of every fourth pixel), which are
  also shown as colours of one lightness.
  """
  ab = cielab.rgb_to_lab(images)[:, ::STRIDE, ::STRIDE, 1:]
  nearest = colour_bins.encode_colours(ab, bins)[0][..., 0]
  target = jnp.asarray(bins.centres)[nearest].repeat(STRIDE, 1).repeat(STRIDE, 2)
  flat = _painted(jnp.full_like(target[..., :1], DISPLAYED), target)
  inputs = jnp.stack([cielab.lightness(images), flat], 1)
  return PretextExamples(inputs, nearest.reshape(len(images), -1), ("lightness (seen)", "colours (asked)"))


def enlarge(maps: jax.Array, height: int, width: int) -> jax.Array:
  """f32[B, h, w, C] -> [B, height, width, C], by linear interpolation between the cells of the map.

  Cell i of a map of stride s has its centre on pixel s i, because the padding of the convolutions is
  symmetric. The usual image resizing would put the centre at half pixels and displace the colours by half a
  cell.
  """
  if maps.shape[1:3] == (height, width):
    return maps
  rows, columns = _interpolation(maps.shape[1], height), _interpolation(maps.shape[2], width)
  return jnp.einsum("hi,wj,bijc->bhwc", jnp.asarray(rows), jnp.asarray(columns), maps)


def _interpolation(small: int, large: int) -> np.ndarray:
  """f32[large, small]: the weights of the cells next to each location; the last cell repeats at the end."""
  place = np.minimum(np.arange(large) * small / large, small - 1)
  return np.maximum(1 - np.abs(place[:, None] - np.arange(small)), 0).astype(np.float32)


def _predict_ab(made: Colorizer, params, model_state, images: jax.Array, temperature: float):
  """Returns (the logits, the predicted colour of every pixel f32[B, H, W, 2])."""
  logits, _ = predict_bins(made, params, model_state, images)
  ab = colour_bins.annealed_mean(logits, made.bins, temperature=temperature)
  return logits, enlarge(ab, *images.shape[1:3])


def _area(ab: jax.Array, found: jax.Array) -> jax.Array:
  """f32[B, H, W]: the contribution of each pixel to the area under the curve of errors, in [0, 1]."""
  return 1 - jnp.minimum(jnp.linalg.norm(ab - found, axis=-1), WORST) / WORST


def _painted(light: jax.Array, ab: jax.Array) -> jax.Array:
  return cielab.lab_to_rgb(jnp.concatenate([light, ab], -1))


def _of_lightness(reader):
  """Returns a function that applies the reader to the lightness of images."""
  return lambda params, model_state, images: reader(params, model_state, cielab.lightness(images))


def _check(**options: float) -> None:
  for name in ("sigma", "temperature"):
    if options[name] <= 0:
      raise ValueError(f"config.method.{name} is {options[name]}; use a positive number")
  if options["smoothing"] < 0 or not 0 <= options["uniform"] <= 1:
    raise ValueError(
      f"config.method: smoothing {options['smoothing']} must be 0 or more and uniform {options['uniform']} a "
      "fraction in [0, 1]; the published values are 5 and 0.5"
    )
