"""Supervised classification: the upper bound in every transfer table. With a pretrained encoder it is
fine-tuning.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssl_jax import losses, metrics
from ssl_jax.abilities import Classifier, Pyramid
from ssl_jax.augment import mix
from ssl_jax.core import Aux, Carry, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.models import Network, heads, network, readers, stack

ABILITIES = (Pyramid, Classifier)


class Average(NamedTuple):
  """The state of fine-tuning with a moving average of the weights."""

  ema: Weights


def make(
  encoder: Network,
  data: DataSpec,
  *,
  label_smoothing: float = 0.0,
  mixup: float = 0.0,
  cutmix: float = 0.0,
  ema: float = 0.0,
  head_scale: float = 0.01,
) -> Method:
  """An encoder and a linear layer, trained with cross-entropy; with config.start, end-to-end fine-tuning.

  Args:
    encoder: the image network.
    data: its `num_classes` is the width of the linear layer.
    label_smoothing: fraction of the target that is spread over all classes, in [0, 1).
    mixup, cutmix: the alphas, see `mix.random_mix`; 0 turns the operation off. The losses of an image's own
      label and of its partner's label are weighted by their fractions of the mixed image.
    ema: momentum of a moving average of the network, which config.weights='ema' evaluates; 0: no average.
    head_scale: standard deviation of the initial weights of the linear layer; 2e-5 in MAE's fine-tuning.
  Metrics: `accuracy` is measured on each image's own label; with mixup or cutmix it is low.
  Raises: ValueError if the data has no classes or an option is out of range.
  Source: He et al. 2016, as torchvision trains it; He et al. 2022, table 9 (fine-tuning) and 11 (from
    scratch).
  """
  _check(data, label_smoothing=label_smoothing, ema=ema, mixup=mixup, cutmix=cutmix)
  net = stack(encoder, network(heads.Linear(data.num_classes, scale=head_scale)))

  def init(key, batch):
    start = net.init(key, batch["image"])
    return Init(*start, Average(jax.tree.map(jnp.copy, start)) if ema else ())

  def loss(params, model_state, extra, batch, key):
    mix_key, drop_key = jax.random.split(key)
    images, labels = batch["image"], batch["label"]
    if mixup or cutmix:
      images, own = mix.random_mix(mix_key, images, mixup=mixup, cutmix=cutmix)
    logits, model_state = net.apply(Weights(params, model_state), images, train=True, key=drop_key)
    values = losses.cross_entropy(logits, labels, smoothing=label_smoothing)
    if mixup or cutmix:
      values = own * values + (1 - own) * losses.cross_entropy(
        logits, mix.partner(labels), smoothing=label_smoothing
      )
    return values.mean(), Aux(
      model_state, Carry(means=model_state), {"accuracy": metrics.accuracy(logits, labels)}
    )

  def average(extra, params, carry):
    return Average(
      jax.tree.map(lambda old, new: ema * old + (1 - ema) * new, extra.ema, Weights(params, carry.means))
    )

  def predict(params, model_state, images):
    return net.apply(Weights(params, model_state), images)[0]

  encode, maps = readers(encoder)
  abilities = {Pyramid: Pyramid(maps), Classifier: Classifier(predict)}
  return Method(init, loss, average if ema else keep_extra, encode, abilities)


def _check(data: DataSpec, **options: float) -> None:
  if data.num_classes < 2:
    raise ValueError(
      f"method 'supervised' needs labels, but the data has {data.num_classes} classes; "
      "use a data set with classes, or a method that learns without labels"
    )
  for name in ("label_smoothing", "ema"):
    if not 0 <= options[name] < 1:
      raise ValueError(f"config.method.{name} is {options[name]}; use a value in [0, 1)")
  for name in ("mixup", "cutmix"):
    if options[name] < 0:
      raise ValueError(
        f"config.method.{name} is {options[name]}; use 0 to turn it off, or a positive alpha such as 0.8"
      )
  if (options["mixup"] or options["cutmix"]) and data.batch_size // data.parts % 2:
    of_a_part = f" divided by config.accumulate {data.parts}" if data.parts > 1 else ""
    raise ValueError(
      f"config.batch_size {data.batch_size}{of_a_part} is odd, but config.method.mixup and cutmix pair "
      "images; use an even number"
    )
