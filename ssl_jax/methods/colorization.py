"""Colorization: which colour has this place of a grey image? A class for each colour, rare ones counting more."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import Aux, DataSpec, Exercise, Init, Method, Reconstruction, Weights, keep_extra
from ssl_jax.methods.pretext import cielab, colour_bins
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, heads, last_map, network, readers, stack

STRIDE = 4  # pixels between the places whose colour is asked for
COLOURFUL = 5.0  # an image without an a or b beyond it is grey and teaches nothing
WORST = 150  # largest error in ab that the area under the curve of errors counts
DISPLAYED = 60.0  # lightness at which colours alone are shown


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
  """Cross-entropy against the true colour, encoded into its nearest bins, weighted by how rare its nearest bin is.

  The network sees L / 100 in all three channels, in evaluation too. Give it `output_stride` 4 or 8; its last map is brought to
  stride 4.

  Args:
    encoder: the image network. data: unused; every method is built alike.
    prior: see colours.bins; a recipe reads it with colours.read_prior. (): all 313 colours, weights of 1.
    smoothing, uniform: of the weights, see colours.class_weights; uniform=1 leaves rebalancing out.
    neighbours, sigma: see colours.bins and colours.encode.
    temperature: of the annealed mean by which a distribution becomes a colour.
  Metrics: `accuracy`: the likeliest bin is the nearest one; in `examine` also `auc`, the area under the share of pixels whose
    ab error is below t, t to 150 (exactly integrated), `auc_rare` with pixels weighted by 1 / prior, and `auc_grey` and
    `auc_rare_grey`, those of predicting grey.
  Raises: ValueError for a prior that is none or values out of range; when traced, for images that 4 does not divide.
  Source: Zhang, Isola, Efros 2016; colours of every fourth pixel and zero loss on grey images as in released code.
  """
  _check(smoothing=smoothing, uniform=uniform, sigma=sigma, temperature=temperature)
  known = colour_bins.bins(prior, neighbours=neighbours)
  rarity = jnp.asarray(
    colour_bins.class_weights(known, uniform=uniform, smoothing=smoothing)
    if prior
    else np.ones(len(known.prior)),
    jnp.float32,
  )
  frequency = jnp.asarray(known.prior * len(known.prior))
  net = stack(last_map(encoder), network(heads.Linear(len(known.centres))))

  def logits_of(params, model_state, images, **training):
    """f32[B, H / 4, W / 4, Q], and the model state."""
    if images.shape[1] % STRIDE or images.shape[2] % STRIDE:
      raise ValueError(
        f"method 'colorization' asks for the colour of every {STRIDE}th pixel; config.augment.size "
        f"{images.shape[1]} is no multiple of {STRIDE}"
      )
    logits, model_state = net.apply(Weights(params, model_state), cielab.lightness(images), **training)
    return enlarge(logits, images.shape[1] // STRIDE, images.shape[2] // STRIDE), model_state

  def judge(logits, images):
    ab = cielab.rgb_to_lab(images)[..., 1:]
    which, weight = colour_bins.encode(ab[:, ::STRIDE, ::STRIDE], known, sigma=sigma)
    colourful = (jnp.abs(ab) > COLOURFUL).any((1, 2, 3))
    loss = colour_bins.cross_entropy(logits, which, weight) * rarity[which[..., 0]]
    loss = jnp.where(colourful[:, None, None], loss, 0.0)
    own = jnp.take_along_axis(logits, which[..., :1], axis=-1)[..., 0]
    return {"loss": loss, "accuracy": own >= logits.max(-1)}  # a maximum costs a tenth of an argmax

  def init(key, batch):
    return Init(*net.init(key, cielab.lightness(batch["image"])))

  def loss(params, model_state, extra, batch, key):
    logits, model_state = logits_of(params, model_state, batch["image"], train=True, key=key)
    scores = judge(logits, batch["image"])
    return scores["loss"].mean(), Aux(model_state, metrics={"accuracy": Mean.of(scores["accuracy"])})

  def colours_of(params, model_state, images, temperature):
    logits, _ = logits_of(params, model_state, images)
    return logits, enlarge(
      colour_bins.annealed_mean(logits, known, temperature=temperature), *images.shape[1:3]
    )

  def examine(params, model_state, images):
    logits, found = colours_of(params, model_state, images, temperature)
    ab = cielab.rgb_to_lab(images)[..., 1:]
    area = lambda ab, found: 1 - jnp.minimum(jnp.linalg.norm(ab - found, axis=-1), WORST) / WORST
    nearest = colour_bins.encode(ab, known._replace(neighbours=1))[0][..., 0]
    scores = judge(logits, images) | {
      "auc": area(ab, found),
      "auc_grey": area(ab, jnp.zeros_like(ab)),
      "auc_rare": area(ab, found) / frequency[nearest],
      "auc_rare_grey": area(ab, jnp.zeros_like(ab)) / frequency[nearest],
    }
    return {name: score.astype(jnp.float32).mean((1, 2)) for name, score in scores.items()}

  def reconstruct(params, model_state, images, key, *, temperature=temperature):
    _, found = colours_of(params, model_state, images, temperature)
    light = cielab.rgb_to_lab(images)[..., :1]
    painted = lambda light: cielab.lab_to_rgb(jnp.concatenate([light, found], -1))
    return Reconstruction(cielab.lightness(images), painted(jnp.full_like(light, DISPLAYED)), painted(light))

  def pose(key, images):
    ab = cielab.rgb_to_lab(images)[:, ::STRIDE, ::STRIDE, 1:]
    nearest = colour_bins.encode(ab, known)[0][..., 0]
    answer = jnp.asarray(known.centres)[nearest].repeat(STRIDE, 1).repeat(STRIDE, 2)
    flat = cielab.lab_to_rgb(jnp.concatenate([jnp.full_like(answer[..., :1], DISPLAYED), answer], -1))
    return Exercise(
      jnp.stack([cielab.lightness(images), flat], 1),
      nearest.reshape(len(images), -1),
      ("lightness (seen)", "colours (asked)"),
    )

  def grey(reader):
    return lambda params, model_state, images: reader(params, model_state, cielab.lightness(images))

  return Method(
    init, loss, keep_extra, *map(grey, readers(encoder)), reconstruct=reconstruct, pose=pose, examine=examine
  )


def enlarge(maps: jax.Array, height: int, width: int) -> jax.Array:
  """f32[B, h, w, C] -> [B, height, width, C], linearly between cells.

  Cell i of a map of stride s has its centre on pixel s i, the padding of the convolutions being symmetric; at half pixels, where
  image resizing puts it, colours would be moved by half a cell.
  """
  rows, columns = (
    jnp.asarray(_between(small, large)) for small, large in ((maps.shape[1], height), (maps.shape[2], width))
  )
  if (rows.shape[0], columns.shape[0]) == maps.shape[1:3]:
    return maps
  return jnp.einsum("hi,wj,bijc->bhwc", rows, columns, maps)


def _between(small: int, large: int) -> np.ndarray:
  """f32[large, small]: the weights of the cells before and behind each place; the last cell goes on to the border."""
  place = np.minimum(np.arange(large) * small / large, small - 1)
  return np.maximum(1 - np.abs(place[:, None] - np.arange(small)), 0).astype(np.float32)


def _check(**options: float) -> None:
  for name in ("sigma", "temperature"):
    if options[name] <= 0:
      raise ValueError(f"config.method.{name} is {options[name]}; use a positive number")
  if options["smoothing"] < 0 or not 0 <= options["uniform"] <= 1:
    raise ValueError(
      f"config.method: smoothing {options['smoothing']} must be 0 or more and uniform {options['uniform']} a share "
      "in [0, 1]; published are 5 and 0.5"
    )
