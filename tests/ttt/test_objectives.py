"""The baselines of test-time training: their losses by hand, what adapts, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, models, parallel, ttt
from ssl_jax.abilities import Adaptable, Masking, Segmenter
from ssl_jax.core import Batch, DataSpec, Weights
from ssl_jax.models import ENCODERS
from ssl_jax.models.batch_statistics import with_batch_statistics
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.ttt import objectives
from ssl_jax.ttt.inner_loop import CLEAN
from tests.ttt.tiny_network import CLASSES, SIZE, classifier, shuffled

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
OFFSETS = jax.random.uniform(jax.random.key(5), (4, SIZE, SIZE, 3), minval=-0.3, maxval=0.3)
LEARNED = ("tent", "memo", "self_training")


def noisy(key, batch: Batch) -> Batch:
  """Four copies with fixed noise, so that they differ."""
  return {"image": batch["image"].astype(jnp.float32) / 255 + OFFSETS[: len(batch["image"])]}


def adapted(backbone, *, steps=1, rate=0.1, copies=4, rows=slice(None), **options) -> ttt.AdaptResult:
  return ttt.adapt(
    backbone,
    IMAGES[rows],
    size=SIZE,
    augment=noisy,
    optimizer=optax.sgd(rate),
    key=KEY,
    steps=steps,
    copies=copies,
    mesh=parallel.make_mesh(jax.devices()[:1]),
    **options,
  )


def one_step(backbone, rate=0.1):
  """Returns (what adapts, before and after a step on the first image)."""
  adaptable = backbone.ability(Adaptable, "a test")
  inner = ttt.make_adapt(adaptable, noisy, optax.sgd(rate), steps=1, copies=4)
  weights, first = ttt.initial_params(backbone)
  state = inner.begin(weights, first, KEY, {"image": IMAGES[0]}, 0)
  return first, inner.step(weights, state, 0).trainable


def names(tree) -> set[str]:
  return {"/".join(str(k.key) for k in path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]}


def test_entropies_by_hand():
  logits = jnp.log(jnp.array([[[0.5, 0.5], [0.9, 0.1]], [[0.5, 0.5], [0.1, 0.9]]]))
  of = lambda p: -(p * np.log(p) + (1 - p) * np.log(1 - p))
  np.testing.assert_allclose(objectives.entropy(logits), [[of(0.5), of(0.9)], [of(0.5), of(0.9)]], rtol=1e-6)
  # The mean of two sure and opposite predictions is as unsure as can be.
  np.testing.assert_allclose(objectives.marginal_entropy(logits), [of(0.5), of(0.5)], rtol=1e-6)
  np.testing.assert_allclose(objectives.marginal_entropy(logits[0]), of(0.7), rtol=1e-6)
  extreme = jnp.array([[1e4, 0.0, -1e4]])
  assert np.isfinite(jax.grad(lambda x: objectives.entropy(x).sum())(extreme)).all()
  assert np.isfinite(jax.grad(lambda x: objectives.marginal_entropy(x).sum())(extreme)).all()


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("objective", LEARNED)
def test_a_step_lowers_the_loss_and_a_rate_of_zero_changes_nothing(objective, norm):
  backbone = ttt.with_objective(classifier(norm), objective, confidence=0.2)
  found = adapted(backbone, steps=5)
  assert found.adapted.all() and (found.losses[:, -1] < found.losses[:, 0]).all()
  assert np.abs(found.logits - found.curve[:, 0]).max() > 1e-3
  still = adapted(backbone, rate=0.0)
  np.testing.assert_allclose(still.logits, found.curve[:, 0], atol=1e-6)
  alone = adapted(backbone, steps=5, rows=slice(0, 1))
  np.testing.assert_allclose(alone.logits[0], found.logits[0], atol=1e-5)


@pytest.mark.parametrize(
  "objective, expected",
  [
    ("tent", {"encoder/norm/scale", "encoder/norm/bias"}),
    ("norm", {f"statistics/encoder/batch_stats/norm/{name}" for name in ("mean", "var")}),
    (
      "memo",
      {f"encoder/{x}" for x in ("conv/kernel", "norm/scale", "norm/bias")} | {"head/kernel", "head/bias"},
    ),
  ],
)
def test_what_adapts(objective, expected):
  first, last = one_step(ttt.with_objective(classifier(), objective))
  strip = lambda found: {name.replace("Dense_0/", "") for name in found}
  assert strip(names(first)) == strip(names(last)) == expected
  for old, new in zip(jax.tree.leaves(first), jax.tree.leaves(last)):
    assert np.abs(old - new).max() > 1e-5


@pytest.mark.parametrize("name", ["resnet18", "preresnet14", "wrn40_2", "vit_tiny", "resnet8"])
def test_the_norms_of_every_kind_of_network_are_found(name):
  """They are the layers that have a scale."""
  net = models.make(name)
  shapes = jax.eval_shape(lambda key: net.init(key, jnp.zeros((2, 64, 64, 3))), KEY).params
  every = names(shapes)
  assert name in ENCODERS
  layers = {path.rsplit("/", 1)[0] for path in every if path.endswith("/scale")}
  expected = {path for path in every if path.rsplit("/", 1)[0] in layers}
  assert names(ttt.select_params(shapes, (objectives.NORMS,))) == expected and expected


def test_norm_mixes_the_statistics_of_the_sample():
  plain = classifier()
  first, last = one_step(ttt.with_objective(plain, "norm", prior=3.0))
  maps = jax.lax.conv_general_dilated(
    jnp.asarray(IMAGES[:1], jnp.float32) / 255,
    plain.weights.params["encoder"]["conv"]["kernel"],
    (1, 1),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  old, new = (tree["statistics"]["encoder"]["batch_stats"]["norm"] for tree in (first, last))
  np.testing.assert_allclose(new["mean"], 0.75 * old["mean"] + 0.25 * maps.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(new["var"], 0.75 * old["var"] + 0.25 * maps.var((0, 1, 2)), atol=1e-5)
  # It is what the other objectives do before their first step.
  many = ttt.with_objective(plain, "norm", prior=3.0)
  found = adapted(many)
  other = adapted(ttt.with_objective(plain, "memo", prior=3.0))
  np.testing.assert_allclose(found.logits, other.curve[:, 0], atol=1e-5)
  # Two steps are a moving average; the rate of the optimiser and the number of copies play no part.
  assert np.abs(found.logits - adapted(many, steps=2).logits).max() > 1e-4
  np.testing.assert_array_equal(adapted(many, rate=9.0).logits, found.logits)
  np.testing.assert_allclose(adapted(many, copies=1).logits, found.logits, atol=1e-5)


def test_a_network_predicts_with_the_statistics_of_the_sample():
  """Before adaptation too: with a prior of one image they count for half."""
  plain = classifier()
  predict = objectives.predictor_of(plain).predict
  found = adapted(ttt.with_objective(plain, "tent", prior=1.0), rate=0.0)
  images = {"image": jnp.asarray(IMAGES, jnp.float32) / 255}
  expected = [
    with_batch_statistics(predict, 0.5)(*plain.weights, {"image": images["image"][i : i + 1]})[0]
    for i in range(3)
  ]
  np.testing.assert_allclose(found.logits, np.stack(expected), atol=1e-5)
  kept = adapted(ttt.with_objective(plain, "tent", prior=float("inf")), rate=0.0)
  np.testing.assert_allclose(kept.logits, predict(*plain.weights, images), atol=1e-5)
  assert np.abs(kept.logits - found.logits).max() > 1e-3


def test_self_training_learns_from_the_sample_alone_and_only_if_sure():
  adaptable = ttt.with_objective(classifier("none"), "self_training", confidence=0.3).ability(Adaptable, "")
  assert adaptable.clean
  predict = lambda params, state, batch: batch["image"] * params
  adaptable = objectives.self_training(objectives.Predictor(predict, lambda p, s: p), confidence=0.6)
  copies, sample = jnp.log(jnp.array([[0.2, 0.8], [0.5, 0.5]])), jnp.log(jnp.array([[0.7, 0.3]]))
  task = adaptable.make_task(KEY, {"image": copies, CLEAN + "image": jnp.tile(sample, (2, 1))})
  np.testing.assert_allclose(adaptable.loss(1.0, {}, task), -np.log([0.2, 0.5]), rtol=1e-5)
  unsure = objectives.self_training(objectives.Predictor(predict, lambda p, s: p), confidence=0.75)
  np.testing.assert_array_equal(unsure.loss(1.0, {}, task), [0, 0])
  # The label is no function of the parameters: the gradient is that of a cross-entropy.
  expected = jax.grad(lambda p: -jax.nn.log_softmax(copies * p)[:, 0].sum())(1.0)
  found = jax.grad(lambda p: adaptable.loss(p, {}, task).sum())(1.0)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pixels_that_are_not_sure_are_left_out():
  predict = lambda params, state, batch: batch["image"]
  adaptable = objectives.self_training(objectives.Predictor(predict, lambda p, s: p), confidence=0.6)
  copies = jnp.log(jnp.array([[[[0.2, 0.8], [0.1, 0.9]]]]))
  clean = jnp.log(jnp.array([[[[0.7, 0.3], [0.55, 0.45]]]]))
  np.testing.assert_allclose(
    adaptable.loss((), {}, ({"image": copies}, {"image": clean})), [-np.log(0.2)], rtol=1e-5
  )


def test_masked_copies_learn_the_sure_classes_of_whole_ones():
  """Each pixel of each copy from the same pixel of the same copy."""
  hide = lambda key, batch: {"image": 0.5 * batch["image"][..., ::-1]}  # which would be of other classes
  predictor = objectives.Predictor(lambda params, state, batch: batch["image"] * params, lambda p, s: p)
  found = objectives.masked_self_training(predictor, Masking(hide, ("encoder",)), confidence=0.6)
  assert found.trainable == ("encoder",) and not found.clean and not found.whole
  whole = jnp.log(jnp.array([[[[0.7, 0.3], [0.45, 0.55]]], [[[0.1, 0.9], [0.8, 0.2]]]]))
  task = found.make_task(KEY, {"image": whole})
  hidden = jax.nn.log_softmax(hide(KEY, {"image": whole})["image"])
  expected = [-hidden[0, 0, 0, 0], -(hidden[1, 0, 0, 1] + hidden[1, 0, 1, 0]) / 2]
  np.testing.assert_allclose(found.loss(1.0, {}, task), expected, rtol=1e-5)
  # The classes are constants, so that only the masked copies have a gradient.
  labels = jnp.array([[[0, 1]], [[1, 0]]])
  sure = jnp.array([[[1.0, 0.0]], [[1.0, 1.0]]])

  def plain(params):
    logs = jax.nn.log_softmax(hide(KEY, {"image": whole})["image"] * params)
    chosen = jnp.take_along_axis(logs, labels[..., None], -1)[..., 0]
    return ((-chosen * sure).sum((1, 2)) / sure.sum((1, 2))).sum()

  gradient = jax.grad(lambda params: found.loss(params, {}, task).sum())(1.0)
  np.testing.assert_allclose(gradient, jax.grad(plain)(1.0), rtol=1e-5)


def test_copies_of_several_samples_learn_each_from_its_own():
  predictor = objectives.Predictor(lambda params, state, batch: batch["image"] * params, lambda p, s: p)
  copies = jnp.log(jnp.array([[0.2, 0.8], [0.4, 0.6]]))
  clean = jnp.log(jnp.array([[0.7, 0.3], [0.1, 0.9]]))
  for several, expected in ((True, [0.2, 0.6]), (False, [0.2, 0.4])):
    found = objectives.self_training(predictor, confidence=0.5, several=several)
    task = found.make_task(KEY, {"image": copies, CLEAN + "image": clean})
    np.testing.assert_allclose(found.loss(1.0, {}, task), -np.log(expected), rtol=1e-5)


def test_crops_are_refused_where_pixels_would_not_match():
  predictor = objectives.Predictor(lambda params, state, batch: batch["image"] * params, lambda p, s: p)
  found = objectives.self_training(predictor)
  task = found.make_task(KEY, {"image": jnp.zeros((2, 4, 4, 2)), CLEAN + "image": jnp.zeros((2, 8, 8, 2))})
  with pytest.raises(
    ValueError, match=r"predictions \[4, 4, 2\] .* classes \[8, 8, 2\] .* leaves every pixel"
  ):
    found.loss(1.0, {}, task)


@functools.cache
def segmenter() -> Backbone:
  """A frozen encoder and a linear head with BatchNorm, which classify every pixel."""
  data = DataSpec(
    8,
    CLASSES,
    2,
    {
      "image": jax.ShapeDtypeStruct((16, 16, 3), jnp.uint8),
      "mask": jax.ShapeDtypeStruct((16, 16), jnp.uint8),
    },
  )
  method = methods.make("segmentation", models.make("resnet8"), data, head="linear", frozen=True)
  batch = {"image": jnp.zeros((2, 16, 16, 3)), "mask": jnp.zeros((2, 16, 16), jnp.uint8)}
  params, state, _ = method.init(KEY, batch)
  return Backbone(jax.device_get(Weights(params, shuffled(state, 2))), method, {"backbone": "pixels"})


@pytest.mark.parametrize("objective", ["norm", *LEARNED])
def test_a_segmenter_adapts_its_frozen_encoder_too(objective):
  backbone = segmenter()
  assert Segmenter in backbone.method.abilities and Adaptable not in backbone.method.abilities
  adaptable = ttt.with_objective(backbone, objective, confidence=0.0).ability(Adaptable, "")
  weights, moving = ttt.initial_params(ttt.with_objective(backbone, objective))
  assert any("stage3" in name for name in names(moving))
  images = jax.random.uniform(KEY, (2, 16, 16, 3))
  task = adaptable.make_task(
    KEY, {"image": images, CLEAN + "image": images} if adaptable.clean else {"image": images}
  )
  value = adaptable.loss(*weights, task)
  assert value.shape == (2,) and np.isfinite(value).all()
  assert adaptable.predict(*weights, {"image": images}).shape == (2, 16, 16, CLASSES)


def test_own_is_the_backbone_itself_and_other_tasks_need_no_task():
  backbone = classifier()
  assert ttt.with_objective(backbone, "own") is backbone
  with pytest.raises(methods.MissingAbility, match="Adaptable, which 'tiny batch' does not have"):
    adapted(backbone)


def test_what_cannot_be_adapted_is_refused():
  with pytest.raises(ValueError, match="adapts the statistics of BatchNorm, but 'tiny group' has none; use"):
    ttt.with_objective(classifier("group"), "norm")
  with pytest.raises(ValueError, match="scales and biases of norms, but 'tiny none' has none; use 'memo'"):
    ttt.with_objective(classifier("none"), "tent")
  with pytest.raises(ValueError, match="prior is infinite, so objective 'norm' adapts nothing"):
    ttt.with_objective(classifier(), "norm", prior=float("inf"))
  with pytest.raises(ValueError, match="objective is 'tend'; use one of own.*did you mean 'tent'"):
    ttt.with_objective(classifier(), "tend")
  for options, message in (
    (dict(prior=-1.0), "prior is -1.0"),
    (dict(prior=float("nan")), "prior is nan"),
    (dict(confidence=1.0), "confidence is 1.0"),
  ):
    with pytest.raises(ValueError, match=message):
      ttt.with_objective(classifier(), "tent", **options)


def test_copies_are_split_only_where_that_changes_nothing():
  whole = adapted(ttt.with_objective(classifier("group"), "tent"))
  parts = adapted(ttt.with_objective(classifier("group"), "tent"), micro_batches=2)
  np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-5)
  sure = dict(confidence=0.0)
  whole = adapted(ttt.with_objective(classifier("group"), "self_training", **sure))
  parts = adapted(ttt.with_objective(classifier("group"), "self_training", **sure), micro_batches=2)
  np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-5)
  for norm, objective in (
    ("group", "memo"),
    ("batch", "tent"),
    ("batch", "norm"),
    ("batch", "self_training"),
  ):
    with pytest.raises(ValueError, match="micro_batches=2, but this objective needs all copies at once"):
      adapted(ttt.with_objective(classifier(norm), objective), micro_batches=2)
  # Without the statistics of the batch, the copies are independent again.
  kept = ttt.with_objective(classifier(), "tent", prior=float("inf"))
  np.testing.assert_allclose(adapted(kept, micro_batches=2).logits, adapted(kept).logits, atol=1e-5)
