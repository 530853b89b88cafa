"""What the objectives of test-time training need of a network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

from ssl_jax.abilities import Adaptable, Classifier, Segmenter
from ssl_jax.core import Batch, PyTree
from ssl_jax.models import frozen_parts
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.ttt.inner_loop import CLEAN


class Predictor(NamedTuple):
  """What the objectives need of a network."""

  # (params, model_state, samples) -> f32[B, ..., C] logits
  predict: Callable[[PyTree, PyTree, Batch], jax.Array]
  # (params, model_state) -> every parameter that could adapt; `predict` takes them
  params: Callable[[PyTree, PyTree], PyTree]


def predictor_of(backbone: Backbone) -> Predictor:
  """Returns the predictor of an adaptable network, a classifier or a segmenter.

  Raises: methods.MissingAbility if the network is none of them.
  """
  abilities = backbone.method.abilities
  if Adaptable in abilities:
    return Predictor(abilities[Adaptable].predict, abilities[Adaptable].params)
  kind = Segmenter if Segmenter in abilities else Classifier
  found = backbone.ability(kind, "task 'ttt'")
  return Predictor(functools.partial(_predict_thawed, found.predict), _all_params)


def clean_copies(batch: Batch) -> Batch:
  """The copies without augmentation, by the names that the network knows."""
  return {name.removeprefix(CLEAN): leaf for name, leaf in batch.items() if name.startswith(CLEAN)}


def _all_params(params: PyTree, model_state: PyTree) -> PyTree:
  return frozen_parts.whole(params, model_state).params


def _predict_thawed(predict: Callable, params: PyTree, model_state: PyTree, batch: Batch) -> jax.Array:
  """Predicts with the parameters of `_all_params`, which include those that the model state keeps frozen."""
  state = {name: leaf for name, leaf in model_state.items() if name != frozen_parts.FROZEN}
  return predict(params, state, batch["image"])
