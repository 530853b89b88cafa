"""SimSiam on the embedded sample: a method of your own, in full, outside of the package.

Command:   ssl-jax train --config=examples/simsiam.py --workdir=runs/simsiam
           ssl-jax evaluate --config=configs/transfer/small.py --workdir=runs/simsiam
Where:     in the folder that holds `examples`, because the recipe names the method as MODULE:FUNCTION. A
           method in an installed package works everywhere.
Data:      7,992 satellite images of EuroSAT, 32 x 32, ten kinds of land; they come with the package.
Source:    Chen & He 2021, "Exploring Simple Siamese Representation Learning".
"""

import flax.linen as nn
import jax

from ssl_jax import losses, recipe
from ssl_jax.abilities import Pyramid
from ssl_jax.core import Aux, DataSpec, Init, Method, Weights, keep_extra
from ssl_jax.metrics import Mean
from ssl_jax.models import Network, network, readers, stack
from ssl_jax.models.norm import BatchNorm


class Projector(nn.Module):
  """`layers` dense layers of one width with BatchNorm; all but the last with ReLU, the last without scale."""

  width: int
  layers: int

  @nn.compact
  def __call__(self, x, *, train):  # f32[B, D] -> f32[B, width]
    for _ in range(self.layers - 1):
      x = nn.relu(BatchNorm(train)(nn.Dense(self.width, use_bias=False)(x)))
    return BatchNorm(train, use_scale=False, use_bias=False)(nn.Dense(self.width, use_bias=False)(x))


class Predictor(nn.Module):
  """A bottleneck of two dense layers."""

  hidden: int

  @nn.compact
  def __call__(self, x, *, train):  # f32[B, D] -> f32[B, D]
    return nn.Dense(x.shape[-1])(nn.relu(BatchNorm(train)(nn.Dense(self.hidden, use_bias=False)(x))))


def make(encoder: Network, data: DataSpec, *, dim: int = 2048, hidden: int = 512, layers: int = 3) -> Method:
  """The negative cosine between the prediction of one view and the other view, which gets no gradient.

  Args:
    encoder: the image network.
    data: not used; all methods have the same signature.
    dim: width of the projection.
    hidden: width of the predictor's bottleneck.
    layers: of the projection: 3 for ImageNet, 2 for CIFAR-10.
  Raises: ValueError for a width or number below 1.
  Source: Chen & He 2021, section 3 and algorithm 1. Difference: the predictor's learning rate decays too.
  """
  if min(dim, hidden, layers) < 1:
    raise ValueError(f"config.method: dim={dim}, hidden={hidden} and layers={layers} must be 1 or more")
  net, predictor = stack(encoder, network(Projector(dim, layers))), network(Predictor(hidden))

  def init(key, batch):
    views = batch["views"][:, 0]
    body_key, predictor_key = jax.random.split(key)
    body = net.init(body_key, views)
    top = predictor.init(predictor_key, net.apply(body, views)[0])
    return Init(*({**part, "predictor": own} for part, own in zip(body, top)))

  def loss(params, model_state, extra, batch, key):
    projections, predictions = [], []
    for number in range(2):  # each view with the BatchNorm statistics of its own batch
      z, body = net.apply(Weights(params, model_state), batch["views"][:, number], train=True)
      top = Weights(params["predictor"], model_state["predictor"])
      p, state = predictor.apply(top, z, train=True)
      model_state = {**body, "predictor": state}
      projections.append(z)
      predictions.append(p)
    one, two = (negative_cosine(p, z) for p, z in zip(predictions, reversed(projections)))
    spread = losses.unit(projections[0]).std(
      0
    )  # of each dimension; dim^-0.5 if it does not collapse, 0 if so
    return (one + two).mean() / 2, Aux(model_state, metrics={"spread": Mean.of(spread)})

  encode, maps = readers(encoder)
  return Method(init, loss, keep_extra, encode, {Pyramid: Pyramid(maps)})


def negative_cosine(prediction: jax.Array, projection: jax.Array) -> jax.Array:
  """f32[B]: minus the cosine of rows f32[B, D]; the projection gets no gradient."""
  return -(losses.unit(prediction) * losses.unit(jax.lax.stop_gradient(projection))).sum(-1)


def get_config():
  return recipe(
    method=dict(name="examples.simsiam:make", dim=256, hidden=64, layers=2),
    encoder=dict(name="resnet10", width=16, stem="small", normalize="eurosat"),
    augment=dict(
      name="moco_v2", views=2, size=32, scale=(0.2, 1.0), strength=0.12, grayscale=0.0, blur=0.0, turns=True
    ),
    optimizer=dict(
      name="sgd", learning_rate=0.03, scaling="linear", momentum=0.9, weight_decay=5e-4, schedule="cosine"
    ),
    data=dict(name="sample", split="train", size=32, cache=True),
    checkpoint=dict(every_steps=500, keep=2),
    batch_size=256,
    epochs=30.0,
    log_every=20,
  )
