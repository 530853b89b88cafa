"""Optimisers and schedules, compared with explicit formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import models, optim
from ssl_jax.models import depths, heads, network, stack

RUN = dict(total_steps=100, steps_per_epoch=10, batch_size=4096)


def follow(made: optim.Optimizer, params, gradients):
  state = made.transform.init(params)
  for gradient in gradients:
    updates, state = made.transform.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_sgd_is_pytorchs():
  made = optim.make_optimizer(
    **RUN, name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.01, schedule="constant"
  )
  p, m = np.array([1.0, -2.0]), np.zeros(2)
  gradients = [np.array([0.5, 0.1]), np.array([-0.2, 0.3]), np.array([0.1, 0.1])]
  for g in gradients:
    m = 0.9 * m + g + 0.01 * p
    p = p - 0.1 * m
  found = follow(made, jnp.array([1.0, -2.0]), [jnp.asarray(g, jnp.float32) for g in gradients])
  np.testing.assert_allclose(found, p, rtol=1e-6)


def test_lars_is_simclrs():
  made = optim.make_optimizer(
    **RUN, name="lars", learning_rate=0.5, momentum=0.9, weight_decay=1e-4, schedule="constant"
  )
  weight, bias = np.array([[3.0, 4.0]]), np.array([1.0, 2.0])
  mw, mb = 0.0, 0.0
  for g in (np.array([[0.6, 0.8]]), np.array([[0.1, -0.3]])):
    d = g + 1e-4 * weight
    mw = 0.9 * mw + 0.5 * 0.001 * np.linalg.norm(weight) / np.linalg.norm(d) * d
    mb = 0.9 * mb + 0.5 * g[0]
    weight, bias = weight - mw, bias - mb
  gradients = [
    {"w": jnp.array(g, jnp.float32), "b": jnp.array(g[0], jnp.float32)} for g in ([[0.6, 0.8]], [[0.1, -0.3]])
  ]
  found = follow(made, {"w": jnp.array([[3.0, 4.0]]), "b": jnp.array([1.0, 2.0])}, gradients)
  np.testing.assert_allclose(found["w"], weight, rtol=1e-6)
  np.testing.assert_allclose(found["b"], bias, rtol=1e-6)


def test_lars_trust_ratio_of_the_specification():
  made = optim.make_optimizer(
    **RUN, name="lars", learning_rate=1.0, momentum=0.0, weight_decay=1e-4, schedule="constant"
  )
  found = follow(made, jnp.array([[3.0, 4.0]]), [jnp.array([[0.6, 0.8]])])
  decayed = np.array([[0.6, 0.8]]) + 1e-4 * np.array([[3.0, 4.0]])
  np.testing.assert_allclose((np.array([[3.0, 4.0]]) - found) / decayed, 0.0049975012, rtol=1e-4)


def test_lars_of_stacked_layers_is_lars_of_each_layer():
  """Layer 0 has small weights and a large gradient: its trust ratio is far from that of layer 1."""
  made = optim.make_optimizer(
    **RUN, name="lars", learning_rate=1.0, momentum=0.9, weight_decay=1e-4, schedule="constant"
  )
  draw, size = np.random.default_rng(0), np.array([0.05, 5.0], np.float32)
  layers = {
    "kernel": draw.normal(size=(2, 4, 3)).astype(np.float32) * size[:, None, None],
    "bias": draw.normal(size=(2, 3)).astype(np.float32),
  }
  gradients = [
    {name: draw.normal(size=leaf.shape).astype(np.float32) for name, leaf in layers.items()} for _ in range(3)
  ]
  stacked = lambda tree: jax.tree.map(jnp.asarray, {"encoder": {"blocks": {"block": tree}}, "head": tree})
  found = follow(made, stacked(layers), [stacked(g) for g in gradients])["encoder"]["blocks"]["block"]
  layer = lambda tree, i: {name: jnp.asarray(leaf[i]) for name, leaf in tree.items()}
  for i in range(2):
    expected = follow(made, layer(layers, i), [layer(g, i) for g in gradients])
    for name in layers:
      np.testing.assert_allclose(found[name][i], expected[name], rtol=1e-6, err_msg=f"{name} of layer {i}")


def test_lars_of_unstacked_layers_is_optaxs_bit_for_bit():
  made = optim.make_optimizer(
    **RUN, name="lars", learning_rate=0.5, momentum=0.9, weight_decay=1e-4, schedule="constant"
  )
  rule = optax.lars(made.schedule, 1e-4, optim._matrices, trust_ratio_mask=optim._matrices, momentum=0.9)
  theirs = optim.Optimizer(optax.chain(optax.identity(), rule, optax.identity()), made.schedule)
  params = {"conv": {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 8)), jnp.float32)}}
  gradients = [jax.tree.map(lambda p, i=i: jnp.cos(p * i), params) for i in (1.0, 2.0)]
  found, expected = follow(made, params, gradients), follow(theirs, params, gradients)
  np.testing.assert_array_equal(found["conv"]["kernel"], expected["conv"]["kernel"])
  # Checkpoints of earlier runs are restored into the same structure.
  assert jax.tree.structure(made.transform.init(params)) == jax.tree.structure(theirs.transform.init(params))


def test_stacks_of_real_networks_are_found():
  params = classifier_shapes("vit_tiny", relative_positions=True)
  leaves = jax.tree_util.tree_leaves_with_path(params)
  assert {leaf.shape[0] for path, leaf in leaves if depths.is_stack(path)} == {12}
  assert {key for key in params["encoder"] if not depths.is_stack((jax.tree_util.DictKey(key),))} == {
    *params["encoder"]
  } - {"blocks", "relative_rows", "relative_columns"}


@pytest.mark.parametrize("scaling, base", [("linear", 0.3), ("sqrt", 0.075)])
def test_warm_up_and_cosine_of_simclr(scaling, base):
  rate = optim.make_optimizer(
    **RUN, name="lars", learning_rate=base, scaling=scaling, warmup_epochs=2.0
  ).schedule
  np.testing.assert_allclose(
    [rate(0), rate(10), rate(20), rate(60), rate(100)], [0, 2.4, 4.8, 2.4, 0], atol=1e-6
  )


@pytest.mark.parametrize(
  "images, batch, epochs, most, longer",
  [
    (1_281_167, 4096, 100, 0.0027, 0.0025),
    (1_281_167, 4096, 1000, 0.0024, 0.0025),
    (50_000, 1024, 1000, 0.017, 0.0173),
  ],
)
def test_dropped_remainders_move_simclrs_schedule_as_little_as_its_recipe_says(
  images, batch, epochs, most, longer
):
  """Compared with the released code, whose epochs have no remainder."""
  steps, total = images // batch, images * epochs // batch + 1
  ours = optim.make_optimizer(
    total_steps=steps * epochs,
    steps_per_epoch=steps,
    batch_size=256,
    name="lars",
    learning_rate=1.0,
    warmup_epochs=10.0,
  ).schedule
  warmup = round(10 * images // batch)
  step = np.arange(steps * epochs)
  decay = 0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup)))
  theirs = np.where(step < warmup, step / warmup, decay)
  found = np.abs(jax.vmap(ours)(jnp.asarray(step)) - theirs).max()
  assert 0.9 * most < found < 1.01 * most
  assert total / (steps * epochs) - 1 == pytest.approx(longer, rel=0.02)


def test_moco_v2_cosine_is_constant_within_an_epoch():
  rate = optim.make_optimizer(**RUN, learning_rate=0.03, schedule="cosine_by_epoch").schedule
  values = np.array([rate(step) for step in range(100)]).reshape(10, 10)
  assert (values == values[:, :1]).all()
  np.testing.assert_allclose(values[:, 0], 0.03 * 0.5 * (1 + np.cos(np.pi * np.arange(10) / 10)), rtol=1e-5)


def test_steps_drop_at_their_epochs():
  rate = optim.make_optimizer(**RUN, learning_rate=1.0, schedule="step", milestones=(6.0, 8.0)).schedule
  np.testing.assert_allclose(
    [rate(0), rate(59), rate(60), rate(79), rate(80)], [1, 1, 0.1, 0.1, 0.01], rtol=1e-5
  )


def rates_of(images: int, batch: int, iterations: int, **options):
  """The schedule of a run that is given in iterations."""
  steps_per_epoch = images // batch
  total = dict(total_steps=iterations, steps_per_epoch=steps_per_epoch, batch_size=batch)
  made = optim.make_optimizer(**total, **options)
  return lambda *steps: np.array([float(made.schedule(step)) for step in steps])


def test_the_polynomial_of_maes_segmentation():
  """160,000 iterations of 16 of the 20,210 images of ADE20K: half of the rate at half of the way."""
  warmup = dict(warmup_epochs=1500 / 1263, warmup_from=1e-6)
  rates = rates_of(20_210, 16, 160_000, schedule="poly", name="adamw", learning_rate=1e-4, **warmup)
  np.testing.assert_allclose(rates(80_000, 120_000), [5e-5, 2.5e-5], rtol=1e-5)
  assert rates(160_000) == 0 and rates(159_999) == pytest.approx(1e-4 / 160_000, rel=0.02)
  # MMSegmentation: the rate of the step times 1 - (1 - step / 1500) (1 - 1e-6).
  steps = np.array([0, 1, 750, 1499, 1500, 1501])
  theirs = 1e-4 * (1 - steps / 160_000) * (1 - np.maximum(1 - steps / 1500, 0) * (1 - 1e-6))
  np.testing.assert_allclose(rates(*steps), theirs, rtol=1e-4)


def test_the_polynomial_ends_at_its_least_rate():
  options = dict(schedule="poly", learning_rate=0.01, power=0.9, final_learning_rate=1e-4)
  rates = rates_of(10_582, 16, 20_000, **options)
  theirs = (0.01 - 1e-4) * (1 - np.array([0, 5000, 19_000, 20_000]) / 20_000) ** 0.9 + 1e-4
  np.testing.assert_allclose(rates(0, 5000, 19_000, 20_000), theirs, rtol=1e-4)


def test_the_steps_of_mocos_segmentation():
  """30,000 iterations of 16 of 10,582 images of VOC, 661 an epoch: three decimals of an epoch are enough."""
  for milestones in ((21_000 / 661, 27_000 / 661), (31.770, 40.847)):
    rates = rates_of(10_582, 16, 30_000, schedule="step", learning_rate=0.003, milestones=milestones)
    found = rates(0, 20_999, 21_000, 26_999, 27_000, 29_999)
    np.testing.assert_allclose(found, [0.003, 0.003, 3e-4, 3e-4, 3e-5, 3e-5], rtol=1e-5)
  assert round(30_000 / 661 * 661) == round(45.386 * 661) == 30_000  # what config.epochs gives


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_warm_up_from_a_fraction_of_the_peak(schedule):
  options = dict(learning_rate=2.0, schedule=schedule, warmup_epochs=2.0, warmup_from=0.1)
  rate = optim.make_optimizer(**RUN, **options).schedule
  np.testing.assert_allclose([rate(0), rate(10), rate(20)], [0.2, 1.1, 2.0], rtol=1e-6)


def test_adamw_is_pytorchs():
  made = optim.make_optimizer(
    **RUN, name="adamw", learning_rate=0.1, momentum=0.9, beta2=0.95, weight_decay=0.05, schedule="constant"
  )
  p, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
  gradients = [np.array([0.5, 0.1]), np.array([-0.2, 0.3]), np.array([0.1, 0.1])]
  for t, g in enumerate(gradients, 1):
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
    p = p - 0.1 * 0.05 * p - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
  found = follow(made, jnp.array([1.0, -2.0]), [jnp.asarray(g, jnp.float32) for g in gradients])
  np.testing.assert_allclose(found, p, rtol=1e-5)


def test_learning_rates_of_maes_pre_training_and_fine_tuning():
  rate = optim.make_optimizer(
    **RUN, name="adamw", learning_rate=1.5e-4, scaling="linear", warmup_epochs=2.0
  ).schedule
  assert float(rate(20)) == pytest.approx(2.4e-3)
  rate = optim.make_optimizer(
    total_steps=100,
    steps_per_epoch=10,
    batch_size=1024,
    name="adamw",
    learning_rate=5e-4,
    scaling="linear",
    final_learning_rate=1e-6,
    warmup_epochs=1.0,
  ).schedule
  np.testing.assert_allclose([rate(10), rate(55), rate(100)], [2e-3, (2e-3 + 1e-6) / 2, 1e-6], rtol=1e-5)


def classifier_shapes(name: str, **options):
  net = stack(models.make(name, **options), network(heads.Linear(10)))
  return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3))).params


@pytest.mark.parametrize(
  "name, decay, first, last_block",
  [("vit_base", 0.65, 0.00369721, 0.65), ("vit_large", 0.75, 0.000752543, 0.75)],
)
def test_layer_decay_is_maes(name, decay, first, last_block):
  params = classifier_shapes(name, pool="fc_norm", positions="sincos_trained", relative_positions=True)
  found, head = depths.depths(params)
  scale = jax.tree.map(lambda depth: decay ** (head - depth), found)
  blocks = scale["encoder"]["blocks"]["block"]["mlp1"]["kernel"]
  assert head == {"vit_base": 13, "vit_large": 25}[name]
  assert blocks.shape == (head - 1, 1, 1)
  for part in ("cls", "positions"):
    assert scale["encoder"][part] == pytest.approx(first, rel=1e-5)
  assert scale["encoder"]["embed"]["kernel"] == pytest.approx(decay**head)
  assert blocks[0, 0, 0] == pytest.approx(decay ** (head - 1)) and blocks[-1, 0, 0] == pytest.approx(
    last_block
  )
  for name in ("relative_rows", "relative_columns"):  # entry l belongs to block l
    np.testing.assert_array_equal(scale["encoder"][name], blocks)
  assert scale["encoder"]["fc_norm"]["scale"] == scale["head"]["Dense_0"]["kernel"] == 1


def test_depths_of_a_resnet_count_its_blocks():
  found, head = depths.depths(classifier_shapes("resnet18"))
  assert head == 9
  assert [
    int(found["encoder"][name]["kernel" if "conv" in name else "scale"])
    for name in ("conv_stem", "norm_stem")
  ] == [0, 0]
  assert int(found["encoder"]["stage1_block1"]["Conv_0"]["kernel"]) == 1
  assert int(found["encoder"]["stage4_block2"]["norm_last"]["scale"]) == 8


def test_layer_decay_scales_updates_decay_included():
  params = {
    "encoder": {"embed": {"kernel": jnp.ones((2, 2))}, "blocks": {"b": {"kernel": jnp.ones((2, 2, 2))}}},
    "head": {"kernel": jnp.ones((2, 2))},
  }
  gradients = jax.tree.map(jnp.ones_like, params)
  options = dict(learning_rate=0.1, momentum=0.0, weight_decay=0.5, schedule="constant")
  plain, scaled = (
    follow(optim.make_optimizer(**RUN, layer_decay=decay, **options), params, [gradients])
    for decay in (1.0, 0.5)
  )
  moved = lambda tree: [
    1 - tree["encoder"]["embed"]["kernel"][0, 0],
    *(1 - tree["encoder"]["blocks"]["b"]["kernel"][:, 0, 0]),
    1 - tree["head"]["kernel"][0, 0],
  ]
  np.testing.assert_allclose(moved(plain), [0.15] * 4, rtol=1e-5)
  np.testing.assert_allclose(moved(scaled), [0.15 / 8, 0.15 / 4, 0.15 / 2, 0.15], rtol=1e-5)


@pytest.mark.parametrize(
  "on, free",
  [
    ("matrices", {"bias", "scale"}),
    ("weights", {"bias", "scale", "cls", "positions", "relative_rows", "relative_columns"}),
  ],
)
def test_decay_spares_vectors_of_stacked_layers_and_tokens(on, free):
  params = jax.tree.map(
    lambda s: jnp.ones(s.shape), classifier_shapes("vit_tiny", positions="learned", relative_positions=True)
  )
  made = optim.make_optimizer(
    **RUN, name="adamw", learning_rate=0.1, weight_decay=0.5, weight_decay_on=on, schedule="constant"
  )
  after = follow(made, params, [jax.tree.map(jnp.zeros_like, params)])
  still = {
    path[-1].key for path, leaf in jax.tree_util.tree_leaves_with_path(after) if (np.asarray(leaf) == 1).all()
  }
  moved = {
    path[-1].key for path, leaf in jax.tree_util.tree_leaves_with_path(after) if (np.asarray(leaf) != 1).all()
  }
  every = {"kernel", "cls", "positions", "relative_rows", "relative_columns"}
  assert still == free and moved == every - free


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(learning_rate=1.0, layer_decay=1.5), r"layer_decay is 1.5; use a fraction in \(0, 1\], such"),
    (dict(learning_rate=0.0), "learning_rate is 0.0; use a positive value"),
    (dict(learning_rate=1.0, milestones=(3.0, 2.0)), "do not increase"),
    (dict(learning_rate=1.0, power=0.0), "power is 0.0; use a positive exponent"),
    (dict(learning_rate=1.0, warmup_from=2.0), r"warmup_from is 2.0; use a fraction in \[0, 1\]"),
    (dict(learning_rate=1.0, warmup_epochs=10.0), "is 100 steps, but the run has only 100"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    optim.make_optimizer(**RUN, **options)
