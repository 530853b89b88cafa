"""The inner loop: theory, the parameters that adapt, invariances of the predictions, and diverging
adaptation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import augment, methods, models, parallel, ttt
from ssl_jax.abilities import Adaptable
from ssl_jax.core import DataSpec, Weights
from ssl_jax.models import patches
from ssl_jax.parallel import placement
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.ttt.inner_loop import ALWAYS, _in_parts

SIZE, KEY = 16, jax.random.key(3)
DATA = DataSpec(1000, 10, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (17, SIZE, SIZE, 3), np.uint8)
INDICES = np.arange(17, dtype=np.int32) + 40
CROPS = augment.make("padded_crop", views=1, size=SIZE, pad=2)
PLAIN = augment.make("none", views=1, size=SIZE)
VIT = dict(width=16, depth=1, heads=2, patch=4)
SMALL = dict(decoder_width=16, decoder_depth=1, decoder_heads=2)


@functools.cache
def trained(name: str):
  """Returns (Adaptable, weights, trainable leaves) of an untrained network in which all leaves differ."""
  if name == "joint":
    method = methods.make("joint", models.make("preresnet14", width=8, stem="small"), DATA)
  else:
    method = methods.make(
      "mae_probe", models.make("vit", **VIT), DATA, head_width=16, head_depth=1, head_heads=2, **SMALL
    )
  batch = {"image": jnp.zeros((2, SIZE, SIZE, 3)), "label": jnp.zeros(2, jnp.int32)}
  params, model_state, _ = jax.jit(method.init)(jax.random.key(1), batch)
  leaves, tree = jax.tree.flatten((params, model_state))
  keys = jax.random.split(jax.random.key(2), len(leaves))
  params, model_state = tree.unflatten(
    [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)]
  )
  weights = Weights(method.abilities[Adaptable].params(params, model_state), model_state)
  return (
    method.abilities[Adaptable],
    jax.device_get(weights),
    jax.device_get(ttt.select_params(weights.params, method.abilities[Adaptable].trainable)),
  )


@functools.lru_cache(maxsize=4)  # what is evicted gives its memory maps back
def program_of(
  name="joint",
  *,
  together=1,
  devices=1,
  carried=False,
  loop="program",
  steps=2,
  rate=0.05,
  momentum=0.0,
  copies=4,
  **options,
):
  adaptable, _, _ = trained(name)
  learn = ttt.make_adapt(
    adaptable,
    CROPS if name == "joint" else PLAIN,
    optax.sgd(rate, momentum or None),
    steps=steps,
    copies=copies,
    **options,
  )
  return ttt.compile_adapt(
    learn, parallel.make_mesh(jax.devices()[:devices]), together=together, carried=carried, loop=loop
  )


def answers(program, name="joint", rows=slice(None)) -> ttt.AdaptResult:
  _, weights, moving = trained(name)
  placed = placement.replicate((weights, moving, KEY), program.mesh)
  found = [answer for _, answer in ttt.standard(program, *placed, {"image": IMAGES[rows]}, INDICES[rows])]
  return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def stream(program, name="joint", rows=slice(None)):
  """Returns the results of one stream and the trainable leaves after it."""
  _, weights, moving = trained(name)
  moving, found = jax.tree.map(lambda leaf: leaf[None], moving), []
  samples = {"image": IMAGES[rows][:, None]}
  for answer, adapted in ttt.online(program, weights, moving, KEY, samples, INDICES[rows]):
    found.append(jax.tree.map(lambda leaf: np.asarray(leaf[0]), answer))
    moving = adapted
  return jax.tree.map(lambda *parts: np.stack(parts), *found), jax.tree.map(
    lambda leaf: np.asarray(leaf[0]), moving
  )


def unadapted(name="joint", rows=slice(None)) -> np.ndarray:
  adaptable, weights, _ = trained(name)
  return np.asarray(
    jax.jit(adaptable.predict)(*weights, {"image": jnp.asarray(IMAGES[rows], jnp.float32) / 255})
  )


def test_one_step_at_the_right_rate_solves_the_linear_toy():
  """The prediction is y1 = v A x, the task is y2 = w A x; the learning rate of the paper's proof makes y1
  exact.
  """
  draw = np.random.default_rng(1)
  A, x, v, w = (draw.standard_normal(shape).astype(np.float32) for shape in ((5, 4), 4, 5, 5))
  y1, y2 = np.float32(0.7), np.float32(-0.4)
  toy = Adaptable(
    make_task=lambda key, batch: batch["image"],
    trainable=("A",),
    loss=lambda params, state, images: 0.5 * jnp.square(w @ params["A"] @ x - y2)[None],
    predict=lambda params, state, batch: (v @ params["A"] @ x)[None, None],
  )
  rate = (y1 - v @ A @ x) / ((y2 - w @ A @ x) * (v @ w) * (x @ x))
  learn = ttt.make_adapt(
    toy,
    lambda key, batch: {"image": batch["image"].astype(jnp.float32)},
    optax.sgd(float(rate)),
    steps=1,
    copies=1,
  )
  program = ttt.compile_adapt(learn, parallel.make_mesh(jax.devices()[:1]), together=1, carried=False)
  weights = Weights({"A": A}, {})
  _, answer = next(
    ttt.standard(
      program, weights, ttt.select_params(weights.params, ("A",)), KEY, {"image": IMAGES[:1]}, INDICES[:1]
    )
  )
  assert 0.5 * (answer.logits[0, 0] - y1) ** 2 < 1e-10 < 0.5 * (answer.curve[0, 0, 0] - y1) ** 2


@pytest.mark.parametrize("name", ["joint", "mae_probe"])
def test_without_steps_or_rate_it_is_the_trained_network(name):
  for options in (dict(steps=0), *([dict(rate=0.0)] if name == "joint" else [])):
    found = answers(program_of(name, **options), name, slice(3))
    np.testing.assert_allclose(found.logits, unadapted(name, slice(3)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.curve[:, 0], found.logits, rtol=1e-5, atol=1e-5)
  learned = answers(program_of(name), name, slice(3))
  assert np.abs(learned.logits - learned.curve[:, 0]).max() > 1e-3 and learned.adapted.all()


def test_what_moves_is_named_by_beginning_or_pattern():
  params = {"encoder": {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}}, "decoder": {"kernel": 4}}
  assert jax.tree.leaves(ttt.select_params(params, ("encoder/a", "decoder"))) == [4, 2, 1]
  assert jax.tree.leaves(ttt.select_params(params, ("encoder/*/kernel",))) == [1, 3]
  with pytest.raises(ValueError, match=r"no parameter is called 'encoder/\*/kernels'"):
    ttt.select_params(params, ("encoder/*/kernels",))


@pytest.mark.parametrize("name, still", [("joint", ("head",)), ("mae_probe", ("head", "decoder"))])
def test_only_what_should_move_moves(name, still):
  _, weights, before = trained(name)
  _, after = stream(program_of(name, carried=True), name, slice(1))
  moved = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(after)}
  assert all(
    np.any(a != b) for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True) if a.size > 4
  )
  whole = ttt.merge_params(after, weights.params)
  for part in still:
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path(whole[part]), jax.tree.leaves(weights.params[part]), strict=True
    ):
      if f"['{part}']{jax.tree_util.keystr(path)}" not in moved:
        np.testing.assert_array_equal(a, b)
  assert moved == {
    path for path in moved if path.startswith(("['encoder']", "['turns']", "['decoder']['mask']"))
  }


def test_each_image_stands_alone_and_a_stream_does_not():
  alone = answers(program_of())
  np.testing.assert_array_equal(answers(program_of(), rows=slice(5, 6)).logits, alone.logits[5:6])
  online = program_of(carried=True)
  first, _ = stream(online, rows=slice(2))
  # the first image of a stream has no predecessor
  np.testing.assert_allclose(first.logits[0], alone.logits[0], rtol=1e-5, atol=1e-5)
  assert np.abs(first.logits[1] - alone.logits[1]).max() > 1e-4
  assert np.abs(first.logits[1] - stream(online, rows=[1, 0])[0].logits[0]).max() > 1e-4  # the order matters


@pytest.mark.parametrize(
  "name, other",
  [
    ("joint", dict(together=4)),
    ("joint", dict(together=16)),
    ("joint", dict(loop="host")),
    ("joint", dict(devices=8)),
    ("mae_probe", dict(together=4, loop="host")),
  ],
)
def test_answers_do_not_depend_on_how_they_are_computed(name, other):
  one, many = answers(program_of(name), name), answers(program_of(name, **other), name)
  for a, b in zip(one, many, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_streams_do_not_mix():
  one, _ = stream(program_of(carried=True), rows=slice(3))
  program = program_of(carried=True, together=2)
  _, weights, moving = trained("joint")
  moving = jax.tree.map(lambda leaf: np.stack([leaf] * 2), moving)
  pairs = {"image": np.stack([IMAGES[:3], IMAGES[5:8]], 1)}
  both = [answer.logits[0] for answer, _ in ttt.online(program, weights, moving, KEY, pairs, INDICES[:3])]
  np.testing.assert_allclose(np.stack(both), one.logits, rtol=1e-5, atol=1e-5)


def test_micro_batches_change_nothing():
  whole, parts = (
    answers(program_of("mae_probe", copies=8, micro_batches=m, momentum=0.9), "mae_probe", slice(2))
    for m in (1, 4)
  )
  for a, b in zip(whole, parts, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_loop_over_parts_finds_their_mean(monkeypatch):
  """The loop that accelerators run; on CPU the parts are unrolled."""
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *values, cpu, default: default(*values))
  task = jax.random.normal(jax.random.key(0), (8, 3))
  gradient_of = jax.value_and_grad(lambda moving, part: jnp.square(part @ moving["w"]).mean())
  whole, parts = (
    _in_parts(gradient_of, {"w": jnp.arange(3.0), "still": None}, task, count) for count in (1, 4)
  )
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), parts, whole)


def test_the_curve_begins_without_learning_and_ends_with_the_answer():
  found = answers(program_of(curve=True), rows=slice(2))
  assert found.curve.shape == (2, 3, 10) and np.abs(found.curve[:, 1] - found.curve[:, 0]).max() > 1e-4
  np.testing.assert_allclose(found.curve[:, 0], unadapted(rows=slice(2)), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    found.curve[:, 2], answers(program_of(), rows=slice(2)).logits, rtol=1e-5, atol=1e-5
  )


def test_the_gate_keeps_what_it_is_certain_of():
  adaptable, weights, _ = trained("joint")
  certain = np.asarray(adaptable.certainty(*weights, {"image": jnp.asarray(IMAGES, jnp.float32) / 255}))
  threshold = float(np.sort(certain)[8:10].mean())
  never, some = (answers(program_of(threshold=t)) for t in (0.0, threshold))
  assert not never.adapted.any() and not never.diverged.any()
  np.testing.assert_array_equal(never.logits, never.curve[:, 0])
  np.testing.assert_array_equal(some.adapted, certain < threshold)
  assert answers(program_of(threshold=ALWAYS), rows=slice(3)).adapted.all()
  with pytest.raises(ValueError, match="threshold=0.5, but this method has no certainty"):
    ttt.make_adapt(trained("mae_probe")[0], PLAIN, optax.sgd(0.1), steps=1, copies=2, threshold=0.5)


def test_what_diverges_is_judged_without_learning_and_counted():
  wild = answers(program_of(rate=1e30), rows=slice(3))
  assert wild.diverged.all() and not wild.adapted.any()
  np.testing.assert_allclose(wild.logits, unadapted(rows=slice(3)), rtol=1e-5, atol=1e-5)
  _, _, before = trained("joint")
  found, after = stream(program_of(rate=1e30, carried=True), rows=slice(2))
  assert found.diverged.all() and np.isfinite(found.logits).all()
  jax.tree.map(np.testing.assert_array_equal, after, before)  # the stream continues from finite weights


def test_learning_lowers_the_loss_of_the_same_masks():
  adaptable, weights, moving = trained("mae_probe")
  program = program_of("mae_probe", steps=10, rate=0.02, momentum=0.9, copies=16, carried=True)
  for row in range(3):
    _, after = stream(program, "mae_probe", slice(row, row + 1))
    same = {"image": jnp.asarray(np.stack([IMAGES[row]] * 16), jnp.float32) / 255}
    task = adaptable.make_task(jax.random.key(9), same)
    assert len({tuple(sorted(np.asarray(order[:4]).tolist())) for order in task[1]}) > 8  # the masks differ
    before, behind = (
      adaptable.loss(ttt.merge_params(m, weights.params), weights.model_state, task).mean()
      for m in (moving, after)
    )
    assert behind < before


def test_masks_of_photographs_remove_147_of_196_patches():
  method = methods.make(
    "mae_probe",
    models.make("vit", **{**VIT, "patch": 16}),
    DATA,
    head_width=16,
    head_depth=1,
    head_heads=2,
    **SMALL,
  )
  _, order = jax.eval_shape(
    method.abilities[Adaptable].make_task, KEY, {"image": jnp.zeros((128, 224, 224, 3))}
  )
  assert order.shape == (128, 196) and patches.visible_count(196, 0.75) == 196 - 147


def test_images_at_hand_are_judged_in_one_call():
  adaptable, weights, _ = trained("joint")
  method = encoder_only(None, {Adaptable: adaptable})
  backbone = Backbone(weights, method, {"backbone": "matrix"})
  found = ttt.adapt(
    backbone,
    IMAGES[:3] / 255,
    size=SIZE,
    augment=CROPS,
    optimizer=optax.sgd(0.05),
    key=KEY,
    steps=2,
    copies=4,
  )
  assert found.logits.shape == (3, 10) and found.adapted.all()
  np.testing.assert_allclose(found.curve[:, 0], unadapted(rows=slice(3)), rtol=1e-5, atol=1e-5)
  with pytest.raises(
    ValueError,
    match="test-time training needs .* Adaptable, which 'matrix' does not have; .*: joint, .*mae_probe",
  ):
    ttt.adapt(
      backbone._replace(method=encoder_only(None)),
      IMAGES,
      size=SIZE,
      augment=CROPS,
      optimizer=optax.sgd(0.05),
      key=KEY,
      steps=2,
      copies=4,
    )


@pytest.mark.parametrize(
  "images, message",
  [
    (np.full((2, 8, 8, 3), np.nan), r"2 of 2 test images, number 0 first, have pixels that are not finite"),
    (
      np.zeros((2, 8, 9, 3)),
      "test images are 8 x 9 pixels, but the network was trained on 8 x 8; resize them",
    ),
    (np.zeros((2, 8, 8, 2)), r"test images are \[2, 8, 8, 2\]; they must be \[N, 8, 8, 3\], or have 1"),
    (np.full((1, 8, 8, 3), 200.0), r"outside \[0, 1\]"),
  ],
)
def test_images_it_cannot_take_are_refused(images, message):
  with pytest.raises(ValueError, match=message):
    ttt.check_images(images, 8)


def test_grey_and_float_images_are_converted():
  with pytest.warns(UserWarning, match="test images have one channel; it is used for red, green and blue"):
    found = ttt.check_images(np.full((2, 8, 8, 1), 0.5, np.float32), 8)
  assert found.shape == (2, 8, 8, 3) and found.dtype == np.uint8 and (found == 128).all()


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(steps=-1), "steps=-1"),
    (dict(copies=0), "copies=0"),
    (dict(micro_batches=3), "micro_batches=3 does not divide copies=4"),
  ],
)
def test_wrong_numbers_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    ttt.make_adapt(trained("joint")[0], CROPS, optax.sgd(0.1), **{"steps": 1, "copies": 4, **options})


def test_unknown_leaves_are_refused():
  with pytest.raises(ValueError, match="no parameter is called 'encodr'; did you mean 'encoder'"):
    ttt.select_params(trained("joint")[1].params, ("encodr",))
