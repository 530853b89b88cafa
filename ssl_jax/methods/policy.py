"""A policy that is cloned from an expert, and a self-supervised task on the same first convolutions, which
goes on at deployment.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax import losses
from ssl_jax.abilities import Actor, Adaptable, Pyramid
from ssl_jax.augment.transition_crop import AFTER, BEFORE, observations, stacked
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.methods.rotation import TURNS, one_turn
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, network, readers, split, stack
from ssl_jax.models.pixel_encoder import Perceptron, maps_of_crops

ABILITIES = (Pyramid, Actor, Adaptable)
CLIP = "clean/clip"  # the frames of the copies of a transition, not cropped


class Branches(NamedTuple):
  """A trunk with two branches. Parameters and state have the keys "encoder" (the trunk), "policy", "task"."""

  trunk: Network
  rest: Network  # the layers of the encoder behind the trunk, of which each branch has its own copy
  policy: Network  # feature map of the trunk -> the action before tanh
  convolutions: Network  # those of the rest, in the branch of the task
  linear: Network  # what follows them
  head: Network  # features -> the action, of both observations, or logits of the rotations
  branch: str
  inverse: bool  # the task is inverse dynamics; otherwise rotation
  weight: float
  size: int


def make(
  encoder: Network,
  data: DataSpec,
  *,
  task: Literal["inverse_dynamics", "rotation"] = "inverse_dynamics",
  branch: str = "conv8",
  weight: float = 1.0,
  hidden: int = 1024,
  size: int = 84,
) -> Method:
  """The squared error to the expert's action plus the loss of the task, trained end to end.

  Parameters: "encoder" is the trunk up to `branch`. "policy" is the rest of the encoder, an MLP and tanh.
  "task" is another rest with a head. Inverse dynamics: the head is an MLP on the features of two observations
  in succession and predicts the action between them, without tanh, by the squared error. Rotation: an MLP
  predicts by how many quarter turns the later observation was rotated, by the cross-entropy. At deployment
  "encoder" and "task" adapt, on random crops of the latest transition.

  The published policy learns by reinforcement (SAC), and its loss reaches the trunk through the critic; here
  the cloning's does.

  Args:
    encoder: a PixelEncoder.
    data: has the elements of `transitions.transition`.
    task: the self-supervised task.
    branch: the layer at which the two branches leave the trunk; "conv8" of 11 as published.
    weight: of the loss of the task; 0: only the policy is trained.
    hidden: width of the two hidden layers of each MLP.
    size: side in pixels of the crops, that of the augmentation: the policy sees the centre of its frames.
  Metrics: `action_error`, the policy's squared error; `task_error`, the loss of the task.
  Raises: ValueError for data without transitions, a branch that is not a layer of the encoder, or options out
    of range.
  Source: Hansen et al. 2021, section 3 and released code; behaviour cloning instead of SAC.
  """
  clip, actions = _check(data, weight, hidden, size)
  trunk, rest = split(encoder, branch)
  module: Any = encoder.module  # `split` has checked it
  last = module.layers()[-2]
  convolutions = rest._replace(apply=functools.partial(rest.apply, until=last))
  linear = rest._replace(apply=functools.partial(encoder.apply, since=last))
  policy = stack(rest, network(Perceptron(actions, hidden)))
  head = network(Perceptron(actions if task == "inverse_dynamics" else len(TURNS), hidden))
  inverse = task == "inverse_dynamics"
  net = Branches(trunk, rest, policy, convolutions, linear, head, branch, inverse, weight, size)
  bound = functools.partial
  act = bound(_act, net)
  abilities = {
    Pyramid: Pyramid(bound(_maps, net)),
    Actor: Actor(act, clip.shape[0] - 1, clip.shape[1], actions, net.inverse),
    Adaptable: Adaptable(
      make_task=_copies_of_actions if net.inverse else _turned_copies,
      loss=bound(_inverse_loss if net.inverse else _turns_loss, net),
      predict=lambda params, model_state, samples: act(params, model_state, samples["clip"]),
      trainable=("encoder", "task"),
      whole=net.inverse,  # all copies are crops of one transition, whose maps they share
      clean=net.inverse,
    ),
  }
  encode = bound(_encode, net, clip.shape[0] - 1)
  return Method(bound(_init, net), bound(_loss, net), keep_extra, encode, abilities)


def _init(net: Branches, key, batch: Batch) -> Init:
  views = batch[BEFORE]
  if views.shape[1] != net.size:
    raise ValueError(
      f"config.method.size is {net.size}, but the augmentation makes crops of {views.shape[1]} pixels; use "
      "the same for config.augment.size"
    )
  trunk_key, policy_key, features_key, head_key = jax.random.split(key, 4)
  trunk = net.trunk.init(trunk_key, views)
  maps, _ = net.trunk.apply(trunk, views)
  policy, features = net.policy.init(policy_key, maps), net.rest.init(features_key, maps)
  found, _ = net.rest.apply(features, maps)
  head = net.head.init(head_key, jnp.tile(found, (1, 1 + net.inverse)))
  task = ({"encoder": e, "head": h} for e, h in zip(features, head))
  return Init(*({"encoder": t, "policy": p, "task": s} for t, p, s in zip(trunk, policy, task)))


def _loss(net: Branches, params, model_state, extra, batch: Batch, key):
  views = jnp.stack([batch[BEFORE], batch[AFTER]], 1)
  turned, targets = views[:, 1], None
  if not net.inverse:
    turned, targets = _turn(key, views[:, 1])
  shown = jnp.stack([views[:, 0], turned], 1)  # side by side, so that they stay on their device
  maps, trunk_state = net.trunk.apply(_part(params, model_state, "encoder"), _flat(shown), train=True)
  maps = maps.reshape(*shown.shape[:2], *maps.shape[1:])
  output, policy_state = net.policy.apply(_part(params, model_state, "policy"), maps[:, 0], train=True)
  error = ((jnp.tanh(output) - batch["expert_action"]) ** 2).mean(1)
  if targets is None:
    both = _task_maps(net, params, model_state, _flat(maps))
    pairs = both.reshape(*maps.shape[:2], *both.shape[1:])
    task = _inverse_errors(net, params, model_state, pairs, batch["action"])
  else:
    maps = _task_maps(net, params, model_state, maps[:, 1])
    task = losses.cross_entropy(_task_output(net, params, model_state, maps), targets)
  found = {"action_error": Mean.of(error), "task_error": Mean.of(task)}
  state = {"encoder": trunk_state, "policy": policy_state, "task": model_state["task"]}
  return error.mean() + net.weight * task.mean(), Aux(state, metrics=found)


def _act(net: Branches, params, model_state, clips):
  """f32[B, A] in [-1, 1]: the action for the centre of the last frames of clips f32[B, n + 1, H, W, 3]."""
  maps = _trunk(net, params, model_state, _centre(net, stacked(clips[:, 1:])))
  return jnp.tanh(net.policy.apply(_part(params, model_state, "policy"), maps)[0])


def _encode(net: Branches, frames: int, params, model_state, images):
  """f32[B, D]: the features of the policy for an image that stands still."""
  maps = _trunk(net, params, model_state, _standing(net, frames, images))
  return readers(net.rest)[0](params["policy"], model_state["policy"], maps)


def _maps(net: Branches, params, model_state, images):
  frames = params["encoder"]["conv1"]["kernel"].shape[2] // 3
  views = _standing(net, frames, images)
  maps, _ = net.trunk.apply(_part(params, model_state, "encoder"), views, pyramid=True)
  return maps | readers(net.rest)[1](params["policy"], model_state["policy"], maps[net.branch])


def _copies_of_actions(key, batch: Batch) -> Batch:
  """The frames of the transition, of which every row has a copy, where they are cropped, and the action."""
  return {"clip": batch[CLIP], "offsets": batch["offsets"], "action": batch["action"]}


def _inverse_loss(net: Branches, params, model_state, task: Batch):
  """f32[N]. The maps of all crops of a frame come from four passes, see `maps_of_crops`."""
  convolve = lambda views: _task_maps(net, params, model_state, _trunk(net, params, model_state, views))
  offsets = task["offsets"]
  pairs = [
    maps_of_crops(convolve, observation, offsets[:, place], net.size)
    for place, observation in enumerate(observations(task["clip"][0]))
  ]
  return _inverse_errors(net, params, model_state, jnp.stack(pairs, 1), task["action"])


def _turned_copies(key, batch: Batch) -> Batch:
  """Crops of the later observation, each in one random rotation, and the rotations."""
  turned, targets = _turn(key, batch[AFTER])
  return {"turned": turned, "targets": targets}


def _turns_loss(net: Branches, params, model_state, task: Batch):
  maps = _task_maps(net, params, model_state, _trunk(net, params, model_state, task["turned"]))
  return losses.cross_entropy(_task_output(net, params, model_state, maps), task["targets"])


def _task_maps(net: Branches, params, model_state, maps):
  """The last maps of the branch of the task, of maps of the trunk."""
  return net.convolutions.apply(_task_part(params, model_state, "encoder"), maps)[0]


def _inverse_errors(net: Branches, params, model_state, pairs, actions):
  """f32[N]: the squared error of the action between pairs of last maps f32[N, 2, h, w, C], a mean over its
  numbers.
  """
  features = _features(net, params, model_state, _flat(pairs)).reshape(len(pairs), -1)
  guessed, _ = net.head.apply(_task_part(params, model_state, "head"), features)
  return ((guessed - actions) ** 2).mean(1)


def _task_output(net: Branches, params, model_state, maps):
  features = _features(net, params, model_state, maps)
  return net.head.apply(_task_part(params, model_state, "head"), features)[0]


def _features(net: Branches, params, model_state, maps):
  return net.linear.apply(_task_part(params, model_state, "encoder"), maps)[0]


def _trunk(net: Branches, params, model_state, views):
  return net.trunk.apply(_part(params, model_state, "encoder"), views)[0]


def _turn(key, views):
  examples = one_turn(key, views)
  return _flat(examples.inputs), _flat(examples.targets)


def _standing(net: Branches, frames: int, images: jax.Array) -> jax.Array:
  """Images f32[B, H, W, 3] as observations in which nothing moves."""
  return _centre(net, jnp.tile(images, (1, 1, 1, frames)))


def _centre(net: Branches, views: jax.Array) -> jax.Array:
  """The central window of `net.size` pixels of observations f32[B, H, W, C]."""
  top, left = ((side - net.size) // 2 for side in views.shape[1:3])
  return views[:, top : top + net.size, left : left + net.size]


def _part(params, model_state, name: str) -> Weights:
  return Weights(params[name], model_state[name])


def _task_part(params, model_state, name: str) -> Weights:
  return Weights(params["task"][name], model_state["task"][name])


def _flat(leaf: jax.Array) -> jax.Array:
  """[B, N, ...] -> [B N, ...]."""
  return leaf.reshape(-1, *leaf.shape[2:])


def _check(data: DataSpec, weight: float, hidden: int, size: int):
  """Returns (what a clip is, the numbers of an action)."""
  missing = [name for name in ("clip", "action", "expert_action") if name not in data.elements]
  if missing:
    raise ValueError(
      "method 'policy' needs transitions, but config.host.name delivers only "
      f"{', '.join(data.elements)}; use config.host.name='transition', on data of "
      "`ssl-jax prepare trajectories`"
    )
  clip = data.elements["clip"]
  if weight < 0:
    raise ValueError(
      f"config.method.weight is {weight}; use a positive one, or 0 for a policy without a task"
    )
  if hidden < 1:
    raise ValueError(f"config.method.hidden is {hidden}; use a positive width, such as 1024")
  if not 1 <= size <= min(clip.shape[1:3]):
    raise ValueError(
      f"config.method.size is {size}, but the frames have {clip.shape[1]} x {clip.shape[2]} pixels; use a "
      "crop that fits, such as 84 of 100"
    )
  return clip, data.elements["action"].shape[0]
