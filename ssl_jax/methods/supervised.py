"""Supervised classification: the upper reference of every transfer table."""

from __future__ import annotations

from ssl_jax import losses, metrics
from ssl_jax.config import DataSpec
from ssl_jax.core import Aux, Init, Method, Weights, keep_extra
from ssl_jax.models import Network, heads, network, readers, stack


def make(encoder: Network, data: DataSpec, *, label_smoothing: float = 0.0) -> Method:
  """An encoder and a linear layer under cross-entropy.

  Args:
    encoder: the image network.
    data: its `num_classes` is the width of the linear layer.
    label_smoothing: share of the target spread over all classes, in [0, 1).
  Raises: ValueError if the data has no classes or the smoothing is out of range.
  Source: He et al. 2016, as torchvision trains it.
  """
  if data.num_classes < 2:
    raise ValueError(f"method 'supervised' needs labels, but the data has {data.num_classes} classes; "
                     "use a data set with classes, or a method that learns without labels")
  if not 0 <= label_smoothing < 1:
    raise ValueError(f"config.method.label_smoothing is {label_smoothing}; use a value in [0, 1)")
  net = stack(encoder, network(heads.Linear(data.num_classes, scale=0.01)))

  def init(key, batch):
    return Init(*net.init(key, batch["image"]))

  def loss(params, model_state, extra, batch, key):
    logits, model_state = net.apply(Weights(params, model_state), batch["image"], train=True)
    values = losses.cross_entropy(logits, batch["label"], smoothing=label_smoothing)
    return values.mean(), Aux(model_state, metrics={"accuracy": metrics.accuracy(logits, batch["label"])})

  return Method(init, loss, keep_extra, *readers(encoder))
