"""What a network can learn at test time from its own predictions, without a task of its own: the baselines of
test-time training.

Each function makes an `Adaptable` of a predictor, so that the same inner loop runs all of them. Entropies of
logits f32[B, ..., C] are averaged over the axes between the first and the last, such as the pixels of a
segmentation, whose augmentation must then leave every pixel where it is.

Statistics of BatchNorm: `share` is the weight of those of the images at hand, see
`models.batch_statistics.with_batch_statistics`: the copies while a network learns, and the sample alone when
it predicts. Networks without BatchNorm have no such statistics, and `share` is 0.
"""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from ssl_jax.abilities import Adaptable, Masking
from ssl_jax.config.checked import nearest
from ssl_jax.models.batch_statistics import has_batch_norm, mixed_statistics, with_batch_statistics
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.ttt.inner_loop import select_params
from ssl_jax.ttt.predictor import Predictor, clean_copies, predictor_of
from ssl_jax.ttt.pseudo_labels import masked_self_training, self_training

Objective = Literal["own", "norm", "tent", "memo", "self_training"]
NORMS = "*[Nn]orm*"  # the path of every scale and bias of a BatchNorm, GroupNorm or LayerNorm


def with_objective(
  backbone: Backbone,
  objective: Objective,
  *,
  prior: float = 16.0,
  confidence: float = 0.9,
  several: bool = False,
) -> Backbone:
  """Returns the backbone with an objective in the place of its own task: its ability Adaptable is replaced.

  Args:
    objective: "own": the backbone as it is; otherwise the function of this name in this file.
    prior: weight of the BatchNorm statistics of training, in images; those of the test image count as one.
      0: only those of the test image, infinity: only those of training. No effect without BatchNorm.
    confidence, several: see `self_training`.
  Raises: ValueError for an unknown objective, values out of range, or a network that has nothing to adapt;
    methods.MissingAbility for a network that predicts no classes.
  Source: Zhang et al. 2022, "MEMO", section 4.1, for the prior of 16 images and a single test image.
  """
  check_objective(objective, prior=prior, confidence=confidence)
  if objective == "own":
    return backbone
  predictor = predictor_of(backbone)
  share = 1 / (1 + prior) if has_batch_norm(backbone.weights.model_state) else 0.0
  if objective == "norm":
    _check_statistics(backbone, share)
    adaptable = norm(predictor, share=share)
  elif objective == "tent":
    adaptable = tent(predictor, share=share)
    _check_norms(backbone, predictor)
  elif objective == "memo":
    adaptable = memo(predictor, share=share)
  elif Masking in backbone.method.abilities:
    adaptable = masked_self_training(predictor, backbone.method.abilities[Masking], confidence=confidence)
  else:
    adaptable = self_training(predictor, share=share, confidence=confidence, several=several)
  abilities = {**backbone.method.abilities, Adaptable: adaptable}
  return backbone._replace(method=backbone.method._replace(abilities=abilities))


def check_objective(objective: str, *, prior: float, confidence: float) -> None:
  """Raises ValueError for an unknown objective or a value out of range."""
  if objective not in get_args(Objective):
    raise ValueError(
      f"config.tasks.ttt.objective is {objective!r}; use one of "
      f"{', '.join(get_args(Objective))}{nearest(objective, get_args(Objective))}"
    )
  if not prior >= 0:
    raise ValueError(f"config.tasks.ttt.prior is {prior}; use 0 or more images, such as 16.0")
  if not 0 <= confidence < 1:
    raise ValueError(f"config.tasks.ttt.confidence is {confidence}; use a probability in [0, 1)")


def tent(predictor: Predictor, *, share: float = 0.0) -> Adaptable:
  """The mean entropy of the predictions for the copies; the scales and biases of all norms adapt.

  The paper predicts a batch of test images with the scales and biases from before its step; here a sample is
  predicted after its steps, like everywhere in test-time training.
  Source: Wang et al. 2021, "Tent: Fully test-time adaptation by entropy minimization", section 3, with the
    statistics of the test images alone (`share` 1); for networks without BatchNorm their section 4.
  """
  mixed = with_batch_statistics(predictor.predict, share)
  return Adaptable(
    make_task=lambda key, batch: batch,
    loss=lambda params, model_state, task: _by_image(entropy(mixed(params, model_state, task))),
    predict=with_batch_statistics(predictor.predict, share, each=True),
    trainable=(NORMS,),
    params=predictor.params,
    whole=share > 0,
  )


def memo(predictor: Predictor, *, share: float = 0.0) -> Adaptable:
  """The entropy of the mean prediction for the copies; all parameters adapt.

  Source: Zhang et al. 2022, "MEMO: Test time robustness via adaptation and augmentation", section 3.
  """
  mixed = with_batch_statistics(predictor.predict, share)

  def loss(params, model_state, task):
    logits = mixed(params, model_state, task)
    value = marginal_entropy(logits).mean()
    return jnp.broadcast_to(value, logits.shape[:1])

  return Adaptable(
    make_task=lambda key, batch: batch,
    loss=loss,
    predict=with_batch_statistics(predictor.predict, share, each=True),
    trainable=("*",),
    params=predictor.params,
    whole=True,
  )


def norm(predictor: Predictor, *, share: float) -> Adaptable:
  """The statistics of BatchNorm become `share` of those of the copies without augmentation and 1 - `share` of
  what they were; no gradient step.

  The parameters are {"network": those of the network, "statistics": the model state}, of which the latter
  adapt. Along a stream they are a moving average. The copies of an image are equal, so that one suffices. The
  loss, which nothing minimises, is their mean entropy.
  Source: Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
    adaptation", section 3.
  """
  predict = predictor.predict
  mixed, measure = with_batch_statistics(predict, share), mixed_statistics(predict, share)

  def update(params, model_state, task):
    return {**params, "statistics": measure(params["network"], params["statistics"], task)}

  return Adaptable(
    make_task=lambda key, batch: clean_copies(batch),
    loss=lambda params, model_state, task: _by_image(
      entropy(mixed(params["network"], params["statistics"], task))
    ),
    predict=lambda params, model_state, batch: predict(params["network"], params["statistics"], batch),
    trainable=("statistics/*batch_stats/*",),
    params=lambda params, state: {"network": predictor.params(params, state), "statistics": state},
    whole=True,
    clean=True,
    update=update,
  )


def entropy(logits: jax.Array) -> jax.Array:
  """f32[...]: the entropy in nats of the classes, the last axis of `logits`."""
  logs = jax.nn.log_softmax(logits.astype(jnp.float32))
  return -(jnp.exp(logs) * logs).sum(-1)


def marginal_entropy(logits: jax.Array) -> jax.Array:
  """f32[...]: the entropy of the mean over the first axis of the probabilities of `logits` f32[N, ..., C]."""
  logs = jax.nn.log_softmax(logits.astype(jnp.float32))
  return entropy(jax.nn.logsumexp(logs, 0))


def _by_image(values: jax.Array) -> jax.Array:
  """[B, ...] -> [B]: means."""
  return values.mean(tuple(range(1, values.ndim)))


def _check_statistics(backbone: Backbone, share: float) -> None:
  if not has_batch_norm(backbone.weights.model_state):
    raise ValueError(
      f"config.tasks.ttt.objective is 'norm', which adapts the statistics of BatchNorm, but "
      f"{backbone.name!r} has none; use a network with BatchNorm (config.encoder.norm='batch'), or 'tent', "
      "which adapts the scales and biases of every kind of norm"
    )
  if not share:
    raise ValueError(
      "config.tasks.ttt.prior is infinite, so objective 'norm' adapts nothing; use a finite one, such as 16.0"
    )


def _check_norms(backbone: Backbone, predictor: Predictor) -> None:
  params = predictor.params(*backbone.weights)
  try:
    select_params(params, (NORMS,))
  except ValueError as error:
    raise ValueError(
      f"config.tasks.ttt.objective is 'tent', which adapts the scales and biases of norms, but "
      f"{backbone.name!r} has none; use 'memo' or 'self_training', which adapt all parameters"
    ) from error
