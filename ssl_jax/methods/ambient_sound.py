"""Ambient sound: predict from a frame what is heard around it, as a cluster or as bits of a summary of the
sound.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from ssl_jax import losses
from ssl_jax.abilities import PretextExamples, Pyramid, SoundPredictor
from ssl_jax.core import Aux, Batch, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, heads, network, readers, stack

ABILITIES = (Pyramid, SoundPredictor)


def make(encoder: Network, data: DataSpec, *, target: Literal["clusters", "bits"] = "clusters") -> Method:
  """A linear layer on the features predicts the target, which `ssl-jax prepare sounds` mined.

  Args:
    encoder: the image network.
    data: for "clusters" its `num_classes` is the number of clusters; for "bits" it must have "bits" bool[K].
    target: "clusters": cross-entropy of the cluster, which is the label of a record; "bits": the mean of the
      logistic losses of all bits.
  Metrics: `accuracy` of the clusters, or of all bits.
  Raises: ValueError for data without clusters or bits.
  Source: Owens, Wu, McDermott, Freeman, Torralba 2016, section 3.
  """
  net = stack(encoder, network(heads.Linear(_outputs(data, target), scale=0.01)))
  score = SCORES[target]

  def init(key, batch):
    return Init(*net.init(key, batch["image"]))

  def loss(params, model_state, extra, batch, key):
    weights = Weights(params, model_state)
    logits, model_state = net.apply(weights, batch["image"], train=True, key=key)
    value, accuracy = score(logits, batch)
    return value.mean(), Aux(model_state, metrics={"accuracy": Mean.of(accuracy)})

  def predict(params, model_state, images):
    return net.apply(Weights(params, model_state), images)[0]

  encode, maps = readers(encoder)
  predictor = SoundPredictor(predict, target, functools.partial(_make_task, target))
  return Method(init, loss, keep_extra, encode, {Pyramid: Pyramid(maps), SoundPredictor: predictor})


def score_clusters(logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Returns, for logits f32[B, K], the cross-entropy of the label in nats f32[B] and whether it is right."""
  return losses.cross_entropy(logits, batch["label"]), logits.argmax(-1) == batch["label"]


def score_bits(logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Returns, for logits f32[B, K], the mean logistic loss in nats f32[B] and the fraction of right bits."""
  bits = batch["bits"]
  loss = optax.sigmoid_binary_cross_entropy(logits, bits.astype(jnp.float32))
  return loss.mean(-1), ((logits > 0) == bits).astype(jnp.float32).mean(-1)


SCORES = {"clusters": score_clusters, "bits": score_bits}


def _make_task(target: str, key: jax.Array, batch: Batch) -> PretextExamples:
  """The images as they are, and what is asked of them."""
  if target == "clusters":
    return PretextExamples(
      batch["image"][:, None], batch["label"][:, None], ("seen",), "cluster of the sound"
    )
  return PretextExamples(
    batch["image"][:, None], batch["bits"].astype(jnp.int32), ("seen",), "bits of the sound"
  )


def _outputs(data: DataSpec, target: str) -> int:
  """The number of clusters or bits."""
  if target == "clusters":
    if data.num_classes < 2:
      raise ValueError(
        f"method 'ambient_sound' predicts clusters, but the data set has {data.num_classes} classes; use a "
        "data set that `ssl-jax prepare sounds` wrote"
      )
    return data.num_classes
  if "bits" not in data.elements:
    raise ValueError(
      "config.method.target is 'bits', but the host delivers only "
      f"{', '.join(data.elements)}; use config.host.name='image_bits'"
    )
  return data.elements["bits"].shape[0]
