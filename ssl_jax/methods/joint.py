"""Joint training: a classifier and rotation prediction on one trunk, which test-time training starts from."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from ssl_jax import losses, metrics
from ssl_jax.core import Adaptable, Aux, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.methods.rotation import TURNS, four_turns, one_turn
from ssl_jax.models import Network, heads, network, readers, split, stack


def make(
  encoder: Network,
  data: DataSpec,
  *,
  branch: str = "stage2",
  copies: Literal["four", "one", "second"] = "four",
  weight: float = 1.0,
) -> Method:
  """Cross-entropy of the classes plus that of quarter turns, end to end.

  Params: "encoder", the trunk up to `branch`; "head", the rest of the network and a linear layer to the classes; "turns", a copy
  of the rest, equal at first, and a linear layer to four turns. At test time "encoder" and "turns" move; BatchNorm, if there is
  any, then keeps its running statistics, but GroupNorm is what the method is made for.

  Args:
    encoder: a ResNet.
    data: its `num_classes` is the width of the classifier.
    branch: the layer at which the two part. "": the end; both are then one linear layer on common features.
    copies: what is turned. "four": each image in all four turns, of which the upright one is also classified (4 B inputs); "one":
      each in one random turn (2 B); "second": the second of two views in one random turn, the first is classified (2 B, ImageNet).
    weight: of the rotation loss.
  Metrics: `accuracy` of the classes, `turns_accuracy`.
  Raises: ValueError for data without classes, a branch that the encoder has not, a weight that is not positive.
  Source: Sun et al. 2020, section 2 and released code; with branch "" and weight 0.5 Hendrycks et al. 2019, without its attack.
  """
  if data.num_classes < 2:
    raise ValueError(
      f"method 'joint' needs labels, but the data has {data.num_classes} classes; use a data set with classes"
    )
  if weight <= 0:
    raise ValueError(
      f"config.method.weight is {weight}; use a positive one, or method 'supervised' without rotation"
    )
  trunk, rest = split(encoder, branch) if branch else (encoder, None)
  classes, turns = (network(heads.Linear(width)) for width in (data.num_classes, len(TURNS)))
  classify, recognise = (stack(rest, top) if rest else top for top in (classes, turns))
  turn = four_turns if copies == "four" else one_turn

  def init(key, batch):
    images = _views(batch, copies)[0]
    trunk_key, head_key, turns_key = jax.random.split(key, 3)
    below = trunk.init(trunk_key, images)
    maps, _ = trunk.apply(below, images)
    head, other = classify.init(head_key, maps), recognise.init(turns_key, maps)
    if rest:
      other = Weights(
        *({**mine, "encoder": jax.tree.map(jnp.copy, theirs["encoder"])} for mine, theirs in zip(other, head))
      )
    return Init(*({"encoder": b, "head": h, "turns": t} for b, h, t in zip(below, head, other)))

  def loss(params, model_state, extra, batch, key):
    images, others = _views(batch, copies)
    exercise = turn(key, others)
    # an image and its turns side by side: they stay on the image's device; of four turns the first is upright
    shown = exercise.pieces if copies == "four" else jnp.concatenate([images[:, None], exercise.pieces], 1)
    below, head, other = (Weights(params[name], model_state[name]) for name in ("encoder", "head", "turns"))
    maps, below_state = trunk.apply(below, _flat(shown), train=True)
    maps = maps.reshape(*shown.shape[:2], *maps.shape[1:])
    logits, head_state = classify.apply(head, maps[:, 0], train=True)
    guesses, other_state = recognise.apply(other, _flat(maps[:, -exercise.pieces.shape[1] :]), train=True)
    answers = _flat(exercise.answers)
    value = (
      losses.cross_entropy(logits, batch["label"]).mean()
      + weight * losses.cross_entropy(guesses, answers).mean()
    )
    return value, Aux(
      {"encoder": below_state, "head": head_state, "turns": other_state},
      metrics={
        "accuracy": metrics.accuracy(logits, batch["label"]),
        "turns_accuracy": metrics.accuracy(guesses, answers),
      },
    )

  def through(network: Network, name: str):
    def apply(params, model_state, images):
      maps, _ = trunk.apply(Weights(params["encoder"], model_state["encoder"]), images)
      return network.apply(Weights(params[name], model_state[name]), maps)[0]

    return apply

  def encode(params, model_state, images):
    maps, _ = trunk.apply(Weights(params["encoder"], model_state["encoder"]), images)
    return readers(rest)[0](params["head"], model_state["head"], maps) if rest else maps

  def pyramid(params, model_state, images):
    maps, _ = trunk.apply(Weights(params["encoder"], model_state["encoder"]), images, pyramid=True)
    return maps | readers(rest)[1](params["head"], model_state["head"], maps[branch]) if rest else maps

  predict, guess = through(classify, "head"), through(recognise, "turns")

  def pose(key, images):
    exercise = one_turn(key, images)
    return _flat(exercise.pieces), _flat(exercise.answers)

  def turns_loss(params, model_state, task):
    turned, answers = task
    return losses.cross_entropy(guess(params, model_state, turned), answers)

  def certainty(params, model_state, images):
    return jax.nn.softmax(guess(params, model_state, images))[:, 0]

  return Method(
    init,
    loss,
    keep_extra,
    encode,
    pyramid,
    predict=predict,
    pose=None if copies == "second" else turn,
    adaptable=Adaptable(pose, turns_loss, predict, ("encoder", "turns"), certainty),
  )


def _views(batch, copies: str) -> tuple[jax.Array, jax.Array]:
  """What is classified and what is turned."""
  return (
    (batch["views"][:, 0], batch["views"][:, 1]) if copies == "second" else (batch["image"], batch["image"])
  )


def _flat(leaf: jax.Array) -> jax.Array:
  """[B, N, ...] as [B N, ...]."""
  return leaf.reshape(-1, *leaf.shape[2:])
