"""Joint training of a classifier and of rotation prediction on a shared trunk: the starting point of
test-time training.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax import losses, metrics
from ssl_jax.abilities import Adaptable, Classifier, PretextTask, Pyramid
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.methods.pretext.pretext_template import make_each_task, mean_by_image, score_classes
from ssl_jax.methods.rotation import TURNS, four_turns, one_turn
from ssl_jax.models import Network, heads, network, readers, split, stack

ABILITIES = (Pyramid, Classifier, PretextTask, Adaptable)


class Branches(NamedTuple):
  """A trunk with two branches. Parameters and state have the keys "encoder" (the trunk), "head", "turns"."""

  trunk: Network
  rest: Network | None  # the layers of the encoder behind the trunk; None: the trunk is the whole encoder
  head: Network  # feature map of the trunk -> logits of the classes
  turns: Network  # feature map of the trunk -> logits of the four rotations
  branch: str  # the layer at which the branches leave the trunk; "": the end of the encoder
  copies: str
  weight: float  # of the rotation loss


def make(
  encoder: Network,
  data: DataSpec,
  *,
  branch: str = "stage2",
  copies: Literal["four", "one", "second"] = "four",
  weight: float = 1.0,
) -> Method:
  """The cross-entropy of the classes plus the cross-entropy of the quarter turns, trained end to end.

  Parameters: "encoder" is the trunk up to `branch`. "head" is the rest of the network and a linear layer to
  the classes. "turns" is a copy of the rest, with the same initial weights, and a linear layer to the four
  rotations. At test time "encoder" and "turns" adapt. BatchNorm, if there is any, then keeps its running
  statistics; the method is made for GroupNorm.

  Args:
    encoder: a ResNet.
    data: its `num_classes` is the width of the classifier.
    branch: the layer at which the two branches leave the trunk. "": the end of the encoder; each branch is
      then a linear layer on the shared features.
    copies: which inputs are rotated. "four": each image in all four rotations, of which the upright one is
      also classified (4 B inputs); "one": each image in one random rotation (2 B inputs); "second": the
      second of two views in one random rotation, while the first view is classified (2 B inputs, for
      ImageNet).
    weight: of the rotation loss.
  Metrics: `accuracy` of the classes, `turns_accuracy` of the rotations.
  Raises: ValueError for data without classes, a branch that is not a layer of the encoder, or a weight that
    is not positive.
  Source: Sun et al. 2020, section 2 and released code; with branch "" and weight 0.5 Hendrycks et al. 2019,
    without its attack.
  """
  _check(data, weight)
  trunk, rest = split(encoder, branch) if branch else (encoder, None)
  top = [network(heads.Linear(width)) for width in (data.num_classes, len(TURNS))]
  head, turns = (stack(rest, linear) if rest else linear for linear in top)
  net = Branches(trunk, rest, head, turns, branch, copies, weight)
  bound = functools.partial
  abilities = {
    Pyramid: Pyramid(bound(_maps, net)),
    Classifier: Classifier(bound(_predict, net)),
    Adaptable: Adaptable(
      make_task=_make_turn_task,
      loss=bound(_turns_loss, net),
      predict=lambda params, model_state, batch: _predict(net, params, model_state, batch["image"]),
      trainable=("encoder", "turns"),
      certainty=lambda params, model_state, batch: _certainty(net, params, model_state, batch["image"]),
    ),
  }
  if copies != "second":  # for "second" the images come as two views
    abilities[PretextTask] = PretextTask(_turn_maker(copies), bound(_evaluate_turns, net))
  return Method(bound(_init, net), bound(_loss, net), keep_extra, bound(_encode, net), abilities)


def _init(net: Branches, key, batch: Batch) -> Init:
  images = _views(batch, net.copies)[0]
  trunk_key, head_key, turns_key = jax.random.split(key, 3)
  trunk = net.trunk.init(trunk_key, images)
  maps, _ = net.trunk.apply(trunk, images)
  head, turns = net.head.init(head_key, maps), net.turns.init(turns_key, maps)
  if net.rest:
    turns = Weights(
      *({**mine, "encoder": jax.tree.map(jnp.copy, theirs["encoder"])} for mine, theirs in zip(turns, head))
    )
  return Init(*({"encoder": t, "head": h, "turns": r} for t, h, r in zip(trunk, head, turns)))


def _loss(net: Branches, params, model_state, extra, batch: Batch, key):
  images, others = _views(batch, net.copies)
  task = _turn_maker(net.copies)(key, others)
  # An image and its rotated copies lie side by side, so that they stay on the image's device. Of four copies
  # the first is upright.
  shown = task.inputs if net.copies == "four" else jnp.concatenate([images[:, None], task.inputs], 1)
  trunk, head, turns = (_part(params, model_state, name) for name in ("encoder", "head", "turns"))
  maps, trunk_state = net.trunk.apply(trunk, _flat(shown), train=True)
  maps = maps.reshape(*shown.shape[:2], *maps.shape[1:])
  logits, head_state = net.head.apply(head, maps[:, 0], train=True)
  guesses, turns_state = net.turns.apply(turns, _flat(maps[:, -task.inputs.shape[1] :]), train=True)
  targets = _flat(task.targets)
  value = losses.cross_entropy(logits, batch["label"]).mean()
  value = value + net.weight * losses.cross_entropy(guesses, targets).mean()
  found = {
    "accuracy": metrics.accuracy(logits, batch["label"]),
    "turns_accuracy": metrics.accuracy(guesses, targets),
  }
  return value, Aux({"encoder": trunk_state, "head": head_state, "turns": turns_state}, metrics=found)


def _encode(net: Branches, params, model_state, images):
  maps, _ = net.trunk.apply(_part(params, model_state, "encoder"), images)
  return readers(net.rest)[0](params["head"], model_state["head"], maps) if net.rest else maps


def _maps(net: Branches, params, model_state, images):
  maps, _ = net.trunk.apply(_part(params, model_state, "encoder"), images, pyramid=True)
  if not net.rest:
    return maps
  return maps | readers(net.rest)[1](params["head"], model_state["head"], maps[net.branch])


def _predict(net: Branches, params, model_state, images):
  """f32[B, C]: logits of the classes."""
  maps, _ = net.trunk.apply(_part(params, model_state, "encoder"), images)
  return net.head.apply(_part(params, model_state, "head"), maps)[0]


def _predict_turns(net: Branches, params, model_state, images):
  """f32[B, 4]: logits of the rotations."""
  maps, _ = net.trunk.apply(_part(params, model_state, "encoder"), images)
  return net.turns.apply(_part(params, model_state, "turns"), maps)[0]


def _make_turn_task(key, batch: Batch):
  """Returns (the copies f32[N, S, S, 3], each in one random rotation; the rotations i32[N])."""
  task = one_turn(key, batch["image"])
  return _flat(task.inputs), _flat(task.targets)


def _turns_loss(net: Branches, params, model_state, task):
  turned, targets = task
  return losses.cross_entropy(_predict_turns(net, params, model_state, turned), targets)


def _certainty(net: Branches, params, model_state, images):
  """f32[B]: the predicted probability that the image is upright."""
  return jax.nn.softmax(_predict_turns(net, params, model_state, images))[:, 0]


def _evaluate_turns(net: Branches, params, model_state, images):
  task = make_each_task(_turn_maker(net.copies), images)
  logits = _predict_turns(net, params, model_state, _flat(task.inputs))
  scores = score_classes(logits.reshape(*task.targets.shape, -1), task.targets)
  return {name: mean_by_image(values) for name, values in scores.items()}


def _turn_maker(copies: str):
  return four_turns if copies == "four" else one_turn


def _part(params, model_state, name: str) -> Weights:
  return Weights(params[name], model_state[name])


def _views(batch: Batch, copies: str) -> tuple[jax.Array, jax.Array]:
  """Returns (the images that are classified, the images that are rotated)."""
  if copies == "second":
    return batch["views"][:, 0], batch["views"][:, 1]
  return batch["image"], batch["image"]


def _flat(leaf: jax.Array) -> jax.Array:
  """[B, N, ...] -> [B N, ...]."""
  return leaf.reshape(-1, *leaf.shape[2:])


def _check(data: DataSpec, weight: float) -> None:
  if data.num_classes < 2:
    raise ValueError(
      f"method 'joint' needs labels, but the data has {data.num_classes} classes; use a data set with classes"
    )
  if weight <= 0:
    raise ValueError(
      f"config.method.weight is {weight}; use a positive one, or method 'supervised' without rotation"
    )
