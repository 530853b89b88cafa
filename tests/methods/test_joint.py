"""Joint training: published sizes, equal initial branches, the rotated inputs, and the baseline that branches
at the end.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import Adaptable, Classifier
from ssl_jax.augment import ops
from ssl_jax.core import DataSpec, make_init, make_train_step

DATA = DataSpec(50_000, 10, 4)
SMALL = dict(width=8, stem="small")
BATCH = {"image": jax.random.uniform(jax.random.key(0), (4, 16, 16, 3)), "label": jnp.arange(4)}


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_resnet26_has_the_published_sizes():
  method = methods.make("joint", models.make("preresnet26"), DATA)
  params = jax.eval_shape(method.init, jax.random.key(0), {"image": jnp.zeros((1, 32, 32, 3))}).params
  assert {name: count(part) for name, part in params.items()} == {
    "encoder": 88_720,
    "head": 278_218,
    "turns": 277_828,
  }


def test_branches_start_alike_and_part_after_one_step():
  method = methods.make("joint", models.make("preresnet14", **SMALL), DATA)
  parts = (method, lambda key, batch: batch, optax.sgd(0.1))
  state = jax.jit(make_init(*parts))(jax.random.key(0), BATCH)
  jax.tree.map(
    np.testing.assert_array_equal, state.params["head"]["encoder"], state.params["turns"]["encoder"]
  )
  state, _ = jax.jit(make_train_step(*parts))(state, BATCH)
  kernels = [state.params[name]["encoder"]["stage3_block1"]["conv1"]["kernel"] for name in ("head", "turns")]
  assert np.abs(kernels[0] - kernels[1]).max() > 1e-6


@pytest.mark.parametrize("branch", ["stage2", ""])
def test_loss_is_that_of_the_classes_and_of_all_four_turns(branch):
  method = methods.make("joint", models.make("preresnet14", **SMALL), DATA, branch=branch, weight=0.5)
  params, model_state, extra = jax.jit(method.init)(jax.random.key(0), BATCH)
  loss, aux = jax.jit(method.loss)(params, model_state, extra, BATCH, jax.random.key(1))
  classes = optax.softmax_cross_entropy_with_integer_labels(
    method.abilities[Classifier].predict(params, model_state, BATCH["image"]), BATCH["label"]
  )
  turns = [
    method.abilities[Adaptable].loss(
      params,
      model_state,
      (jax.vmap(lambda image, turn=turn: ops.rotate(image, turn))(BATCH["image"]), jnp.full(4, turn)),
    )
    for turn in range(4)
  ]
  np.testing.assert_allclose(loss, classes.mean() + 0.5 * np.mean(turns), rtol=1e-5)
  assert set(aux.metrics) == {"accuracy", "turns_accuracy"}


def test_the_second_view_is_turned_once():
  method = methods.make("joint", models.make("preresnet14", **SMALL), DATA, copies="second")
  views = {"views": jnp.stack([BATCH["image"], BATCH["image"][::-1]], 1), "label": BATCH["label"]}
  params, model_state, extra = jax.jit(method.init)(jax.random.key(0), views)
  key = jax.random.key(1)
  loss, _ = jax.jit(method.loss)(params, model_state, extra, views, key)
  classes = optax.softmax_cross_entropy_with_integer_labels(
    method.abilities[Classifier].predict(params, model_state, BATCH["image"]), BATCH["label"]
  )
  turns = method.abilities[Adaptable].loss(
    params, model_state, method.abilities[Adaptable].make_task(key, {"image": BATCH["image"][::-1]})
  )
  np.testing.assert_allclose(loss, classes.mean() + turns.mean(), rtol=1e-5)


def test_copies_of_one_image_get_turns_of_their_own():
  method = methods.make("joint", models.make("preresnet14", **SMALL), DATA)
  same = jnp.broadcast_to(BATCH["image"][:1], (32, 16, 16, 3))
  pieces, answers = method.abilities[Adaptable].make_task(jax.random.key(5), {"image": same})
  assert set(np.asarray(answers).tolist()) == {0, 1, 2, 3}
  for piece, answer in zip(pieces, answers):
    np.testing.assert_array_equal(piece, np.rot90(np.asarray(same[0]), int(answer)))


def test_certainty_is_the_probability_of_upright():
  method = methods.make("joint", models.make("preresnet14", **SMALL), DATA)
  params, model_state, _ = jax.jit(method.init)(jax.random.key(0), BATCH)
  certain = method.abilities[Adaptable].certainty(params, model_state, BATCH)
  upright = method.abilities[Adaptable].loss(params, model_state, (BATCH["image"], jnp.zeros(4, jnp.int32)))
  np.testing.assert_allclose(certain, np.exp(-upright), rtol=1e-5)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(branch="stage9"), "config.method.branch is 'stage9'"),
    (dict(weight=0.0), "config.method.weight is 0.0"),
  ],
)
def test_wrong_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    methods.make("joint", models.make("preresnet14"), DATA, **options)


def test_data_without_classes_is_refused():
  with pytest.raises(ValueError, match="method 'joint' needs labels, but the data has 0 classes"):
    methods.make("joint", models.make("preresnet14"), DATA._replace(num_classes=0))
