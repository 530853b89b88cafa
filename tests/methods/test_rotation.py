"""Rotation: the turns, their labels and the branch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import PretextTask, Pyramid
from ssl_jax.augment import ops
from ssl_jax.core import DataSpec
from ssl_jax.methods import rotation
from ssl_jax.methods.pretext import pretext_template

DATA = DataSpec(100, 10, 8)
IMAGES = jax.random.uniform(jax.random.key(0), (8, 16, 16, 3))


def encoder(**options):
  return models.make("resnet10", width=8, stem="small", **options)


def test_quarter_turns_are_anticlockwise():
  image = jnp.array([[1.0, 2], [3, 4]])[None, :, :, None].repeat(3, -1)
  pieces = rotation.four_turns(jax.random.key(0), image).inputs[0, ..., 0]
  np.testing.assert_array_equal(
    pieces, [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
  )
  third = ops.rotate(ops.rotate(IMAGES[0], 1), 3)
  np.testing.assert_array_equal(third, IMAGES[0])
  np.testing.assert_array_equal(ops.rotate(IMAGES[0], 2), ops.rotate(ops.rotate(IMAGES[0], 1), 1))


def test_every_turn_is_asked_equally_often_and_one_turn_is_one_of_the_four():
  four = rotation.four_turns(jax.random.key(0), IMAGES)
  assert four.inputs.shape == (8, 4, 16, 16, 3)
  assert np.bincount(np.asarray(four.targets).ravel()).tolist() == [8] * 4
  one = rotation.one_turn(jax.random.key(1), IMAGES)
  assert len(set(np.asarray(one.targets).ravel().tolist())) > 1
  for i, turn in enumerate(np.asarray(one.targets)[:, 0]):
    np.testing.assert_array_equal(one.inputs[i, 0], four.inputs[i, turn])


def test_loss_starts_at_log_4_and_a_constant_image_has_equal_logits_in_all_turns():
  method = methods.make("rotation", encoder(norm="group"), DATA)
  init, loss = jax.jit(method.init), jax.jit(method.loss)
  start = init(jax.random.key(0), {"image": IMAGES})
  value, aux = loss(start.params, start.model_state, (), {"image": IMAGES}, jax.random.key(1))
  assert float(value) == pytest.approx(np.log(4), abs=0.3) and float(aux.metrics["accuracy"].count) == 32
  flat = jnp.full((8, 16, 16, 3), 0.3)
  scores = jax.jit(method.abilities[PretextTask].evaluate_task)(start.params, start.model_state, flat)
  np.testing.assert_allclose(scores["accuracy"], 0.25)  # the same answer for four equal images


def test_equal_logits_are_right_for_one_turn_only():
  scores = pretext_template.score_classes(jnp.zeros((2, 4, 4)), jnp.tile(jnp.arange(4)[None], (2, 1)))
  np.testing.assert_array_equal(scores["accuracy"], [[True, False, False, False]] * 2)


@pytest.mark.parametrize("branch, width", [("stage1", 8), ("stage3", 32)])
def test_a_branch_leaves_the_encoder_there(branch, width):
  method = methods.make("rotation", encoder(), DATA, branch=branch)
  start = jax.jit(method.init)(jax.random.key(0), {"image": IMAGES})
  kept = {name.split("_")[0] for name in start.params["encoder"]}
  assert branch in kept and "stage4" not in kept and "stage4_block1" in start.params["head"]["encoder"]
  assert method.encode(start.params, start.model_state, IMAGES).shape == (8, width)
  assert list(method.abilities[Pyramid].maps(start.params, start.model_state, IMAGES))[-1] == branch
  gradient = jax.jit(
    jax.grad(lambda p: method.loss(p, start.model_state, (), {"image": IMAGES}, jax.random.key(1))[0])
  )(start.params)
  assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradient))


def test_trunk_and_branch_in_a_row_are_the_encoder():
  whole = encoder(norm="group")
  trunk, rest = models.split(whole, "stage2")
  weights = whole.init(jax.random.key(0), IMAGES)
  maps, _ = trunk.apply(weights, IMAGES)
  assert maps.shape == (8, 4, 4, 16)
  np.testing.assert_allclose(
    rest.apply(weights, maps)[0], whole.apply(weights, IMAGES)[0], rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  "make, message",
  [
    (
      lambda: methods.make("rotation", encoder(), DATA, branch="stage4"),
      "branch is 'stage4', but this encoder can be split after one of stem, stage1, ",
    ),
    (
      lambda: methods.make("rotation", models.make("vit_tiny"), DATA, branch="stage2"),
      "only a ResNet can be split",
    ),
    (
      lambda: methods.make("rotation", encoder(), DATA, copies="two"),
      "config.method.copies is 'two'.*known: four, one",
    ),
  ],
)
def test_refusals(make, message):
  with pytest.raises(ValueError, match=message):
    make()
