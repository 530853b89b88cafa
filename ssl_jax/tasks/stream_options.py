"""The options of learning along videos, which the tasks on streams share."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import optax

from ssl_jax import ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.ttt import make_rule
from ssl_jax.tasks.video_streams import Learning


class Options(NamedTuple):
  """How a network learns along a video; see `ttt_video.make`."""

  objective: ttt.Objective
  confidence: float
  carry: bool
  window: int
  steps: int
  copies: int
  learning_rate: float
  encoder_rate: float
  optimizer: Literal["sgd", "nesterov", "adamw"]
  momentum: float
  weight_decay: float
  clip_norm: float
  trainable: tuple[str, ...]
  offline: int
  order: str
  micro_batches: int
  together: int
  balance: float = 0.0

  def check(self, task: str) -> Options:
    """Returns itself. Raises ValueError for values out of range."""
    for name in ("window", "offline", "together", "balance"):
      if getattr(self, name) < 0:
        raise ValueError(f"config.tasks.{task}.{name} is {getattr(self, name)}; use 0 or more")
    for name in ("learning_rate", "encoder_rate"):
      if getattr(self, name) <= 0:
        raise ValueError(f"config.tasks.{task}.{name} is {getattr(self, name)}; use a positive number")
    if not 0 <= self.confidence < 1:
      raise ValueError(
        f"config.tasks.{task}.confidence is {self.confidence}; use a probability in [0, 1), such as 0.9"
      )
    if self.offline and (self.steps or not self.carry):
      raise ValueError(
        f"config.tasks.{task}.offline is {self.offline}, which learns before the first frame; use steps=0 "
        f"(is {self.steps}) and carry=True (is {self.carry})"
      )
    if self.balance and not (self.steps and self.carry):
      raise ValueError(
        f"config.tasks.{task}.balance is {self.balance}, which resets parameters that are carried along the "
        f"stream; use carry=True (is {self.carry}) and one step or more (steps is {self.steps}), or balance=0"
      )
    return self

  def learner(self, backbone: Backbone, task: str, cure: str) -> Backbone:
    """The backbone whose ability Adaptable is the objective.

    A network without a task of its own, and without steps, gets one that it never learns.
    Raises: methods.MissingAbility or ValueError if it has nothing to learn.
    """
    objective = self.objective
    if objective == "own" and not (self.steps or self.offline or Adaptable in backbone.method.abilities):
      objective = "memo"
    several = self.window != 1 or self.offline > 0
    backbone = ttt.with_objective(backbone, objective, confidence=self.confidence, several=several)
    backbone.ability(Adaptable, f"task {task!r}", cure)
    return backbone

  def learning(self, seed: int) -> Learning:
    """What the network learns from at each frame."""
    return Learning(self.window, self.steps, self.copies, seed)

  def rule(self) -> optax.GradientTransformation:
    """The optimiser, in which the encoder has a learning rate of its own."""
    rule = make_rule(
      self.optimizer,
      learning_rate=self.learning_rate,
      momentum=self.momentum,
      weight_decay=self.weight_decay,
      weight_decay_on="weights",
      clip_norm=self.clip_norm,
    )

    def scale(path, leaf):
      return leaf * self.encoder_rate if path[0].key == "encoder" else leaf

    slower = optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))
    return optax.chain(rule, slower)
