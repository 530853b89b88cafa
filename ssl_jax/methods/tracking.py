"""Learning from tracking: two patches of a track are nearer to each other than to patches of other tracks."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax import losses
from ssl_jax.abilities import PretextExamples, PretextTask, Pyramid
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, Weights
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, heads, network, readers, stack

ABILITIES = (Pyramid, PretextTask)
SameClip = Literal["negatives", "later", "none"]
PATCHES = 2  # of a track: the first and the last
_EXACT = jax.lax.Precision.HIGHEST  # cosines that are compared with a margin


class TrackingState(NamedTuple):
  """The state besides the network."""

  steps: jax.Array  # i32[]: number of completed steps


def make(
  encoder: Network,
  data: DataSpec,
  *,
  dim: int = 0,
  margin: float = 0.5,
  negatives: int = 4,
  hard: float = 0.5,
  random_epochs: float = 0.0,
  same_clip: SameClip = "negatives",
) -> Method:
  """A ranking loss on the cosines of pairs of patches, which `ssl-jax prepare tracks` mined.

  For each pair (x, x+) up to `negatives` patches x- of other tracks in the batch are chosen among those that
  violate cos(x, x+) > cos(x, x-) + `margin`. The loss of a pair is the sum over them of
  max(0, cos(x, x-) - cos(x, x+) + margin) + max(0, cos(x+, x-) - cos(x, x+) + margin), divided by
  2 x `negatives` whatever the number of violations.

  Args:
    encoder: the image network; a CaffeNet with fc=(4096, 1024) as published.
    data: must have "clip" uint8[2, H, W, 3].
    dim: width of a linear layer on the features whose outputs are compared; 0: none, the features are
      compared themselves. The layer is dropped after the training.
    margin: 0.5 in the paper, 1 in the released code.
    negatives: number of patches that are chosen for a pair.
    hard: fraction of the negatives that are drawn from the `negatives` hardest, the others are drawn at
      random from what remains: 0.5 in the released code, 1 in the paper.
    random_epochs: epochs at the beginning in which all negatives are drawn at random; hard negatives from the
      beginning make the network collapse.
    same_clip: what patches of other tracks of the same clip are. "negatives": as all others, as published;
      "later": negatives unless their tracks overlap in time, when they may show the same thing at the same
      moment; "none": no negatives. The last two are ours, and need "clip_number" and "numbers" in the data.
  Metrics: `contrast_accuracy`: x+ is nearer to x than every patch of another track. `violations`: fraction of
    the possible negatives that violate.
  Raises: ValueError for data without such pairs, or options out of range.
  Source: Wang and Gupta 2015, eq. 2 to 5, and released code, which compares cosines too.
  """
  _check(data, dim, negatives, hard, random_epochs)
  _check_clips(data, same_clip)
  net = stack(encoder, network(heads.Linear(dim)) if dim else _NO_HEAD)
  random_steps = round(random_epochs * (data.num_examples // data.batch_size))
  hardest = round(hard * negatives)

  def init(key, batch):
    return Init(*net.init(key, batch["clip"]), TrackingState(jnp.zeros((), jnp.int32)))

  def loss(params, model_state, extra, batch, key):
    draw_key, drop_key = jax.random.split(key)
    weights = Weights(params, model_state)
    embeddings, model_state = net.apply(weights, batch["clip"], train=True, key=drop_key)
    others = other_tracks(batch, same_clip)
    number = jnp.where(extra.steps < random_steps, 0, hardest)
    values, metrics = rank(
      draw_key, losses.unit(embeddings), others, margin=margin, negatives=negatives, hardest=number
    )
    return values.mean(), Aux(model_state, metrics=metrics)

  def after_update(extra, params, carry):
    return TrackingState(extra.steps + 1)

  encode, maps = readers(encoder)
  task = PretextTask(_make_task, functools.partial(_evaluate, net), "clip")
  return Method(init, loss, after_update, encode, {Pyramid: Pyramid(maps), PretextTask: task})


def other_tracks(batch: Batch, same_clip: SameClip) -> jax.Array:
  """bool[B, 2B]: whether a patch is a possible negative of a track. Track i has the patches 2i and 2i + 1.

  Args:
    batch: "clip" [B, 2, ...], and, unless all patches of the same clip are negatives, "clip_number" i32[B]
      and the frames "numbers" i32[B, 2].
    same_clip: see `make`.
  """
  tracks = jnp.arange(len(batch["clip"]))
  others = tracks[:, None] != tracks[None]
  if same_clip != "negatives":
    clips, (first, last) = batch["clip_number"], batch["numbers"].T
    others = clips[:, None] != clips[None]
    if same_clip == "later":
      others |= (first[:, None] > last[None]) | (last[:, None] < first[None])
  return jnp.repeat(others, PATCHES, axis=1)


def rank(
  key: jax.Array,
  pairs: jax.Array,
  others: jax.Array,
  *,
  margin: float,
  negatives: int,
  hardest: jax.Array | int,
) -> tuple[jax.Array, dict[str, Mean]]:
  """The ranking loss of `make`: f32[B], and its metrics.

  Args:
    pairs: f32[B, 2, D], unit norm. The gradient flows through all of them, but not through the choice.
    others: bool[B, 2B], see `other_tracks`.
    hardest: i32[], how many of the negatives are drawn from the `negatives` hardest ones.
  """
  patches = pairs.reshape(-1, pairs.shape[-1])
  first, last = (jnp.matmul(pairs[:, i], patches.T, precision=_EXACT) for i in range(PATCHES))
  own = (pairs[:, 0] * pairs[:, 1]).sum(-1)[:, None]
  candidates = others & (first - own + margin > 0)
  chosen = choose_negatives(key, jax.lax.stop_gradient(first), candidates, negatives, hardest)
  hinge = jax.nn.relu(first - own + margin) + jax.nn.relu(last - own + margin)
  values = jnp.where(chosen, hinge, 0).sum(1) / (2 * negatives)
  nearest = jnp.where(others, first, -jnp.inf).max(1)
  return values, {
    "contrast_accuracy": Mean.of(own[:, 0] > nearest + losses.ROUNDING),
    "violations": Mean.of(candidates, others),
  }


def choose_negatives(
  key: jax.Array, cosines: jax.Array, candidates: jax.Array, count: int, hardest: jax.Array | int
) -> jax.Array:
  """Chooses up to `count` candidates of each row: all of them where there are no more.

  Otherwise `hardest` are drawn from the `count` candidates of greatest cosine, and the rest from all other
  candidates.

  Args:
    cosines: f32[B, N].
    candidates: bool[B, N].
  Returns: bool[B, N].
  """
  count = min(count, cosines.shape[1])
  hard_key, rest_key = jax.random.split(key)
  _, top = jax.lax.top_k(jnp.where(candidates, cosines, -jnp.inf), count)
  places = jnp.argsort(jax.random.uniform(hard_key, top.shape), axis=1)  # a random order of each row
  hard = _mark(top, places < hardest, cosines.shape[1])
  order = jax.random.uniform(rest_key, cosines.shape)  # in [0, 1)
  highest, chosen = jax.lax.top_k(jnp.where(candidates, jnp.where(hard, 2.0, order), -1.0), count)
  return _mark(chosen, highest >= 0, cosines.shape[1])


def _mark(places: jax.Array, wanted: jax.Array, length: int) -> jax.Array:
  """bool[B, length]: True at the places i32[B, K] that are wanted, bool[B, K]."""
  here = places[..., None] == jnp.arange(length)[None, None]
  return (here & wanted[..., None]).any(1)


def _make_task(key: jax.Array, clips: jax.Array) -> PretextExamples:
  """The two patches of each track f32[B, 2, H, W, 3] and the last patch of another track."""
  inputs = jnp.concatenate([clips, jnp.roll(clips[:, 1:], 1, axis=0)], 1)
  return PretextExamples(inputs, jnp.zeros((len(clips), 1), jnp.int32), ("first", "last", "another track's"))


def _evaluate(net: Network, params, model_state, clips: jax.Array) -> dict[str, jax.Array]:
  """The cosine of the two patches of each track; task 'same_track' compares it with those of other tracks."""
  pairs = losses.unit(net.apply(Weights(params, model_state), clips)[0])
  return {"similarity": (pairs[:, 0] * pairs[:, 1]).sum(-1)}


_NO_HEAD = Network(lambda key, features: Weights({}, {}), lambda weights, features, **_: (features, {}))


def _check(data: DataSpec, dim: int, negatives: int, hard: float, random_epochs: float) -> None:
  clip = data.elements.get("clip")
  if clip is None or clip.shape[0] != PATCHES:
    delivered = ", ".join(data.elements) if clip is None else f"clips of {clip.shape[0]} frames"
    raise ValueError(
      f"method 'tracking' needs clips of {PATCHES} frames, but config.host.name delivers only {delivered}; "
      f"use config.host.name='stored_frames' and config.host.count={PATCHES}"
    )
  for name, value, least in (
    ("dim", dim, 0),
    ("negatives", negatives, 1),
    ("random_epochs", random_epochs, 0),
  ):
    if value < least:
      raise ValueError(f"config.method.{name} is {value}; use {least} or more")
  if not 0 <= hard <= 1:
    raise ValueError(f"config.method.hard is {hard}; use a fraction from 0 to 1, such as 0.5")


def _check_clips(data: DataSpec, same_clip: SameClip) -> None:
  if same_clip == "negatives":
    return
  missing = [repr(name) for name in ("clip_number", "numbers") if name not in data.elements]
  if missing:
    raise ValueError(
      f"config.method.same_clip is {same_clip!r}, but config.host.name does not deliver "
      f"{' and '.join(missing)}; use config.host.name='stored_frames', or same_clip='negatives'"
    )
