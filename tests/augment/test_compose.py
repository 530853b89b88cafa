"""Recipes applied to batches: shapes, a key per image, host crops, several devices, loop and vmap, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax import augment
from ssl_jax.augment.records import RECORDS

SIZE = 16


@pytest.fixture(scope="module")
def batch(square):
  image = np.stack([np.roll(square, shift, 1) for shift in range(8)])
  return {"image": image, "label": np.arange(8, dtype=np.int32), "index": np.arange(8)}


def test_known_names():
  assert augment.known() == [
    "adjacent",
    "finetune",
    "global_local",
    "moco_v1",
    "moco_v2",
    "none",
    "object_crop",
    "padded_crop",
    "record_crop",
    "resize_shorter",
    "scale_jitter",
    "simclr",
    "study",
    "supervised",
    "transition_crop",
  ]


@pytest.mark.parametrize("name", sorted(set(augment.known()) - set(RECORDS)))
def test_two_views(batch, name):
  out = jax.eval_shape(augment.make(name, views=2, size=SIZE), jax.random.key(0), batch)
  assert sorted(out) == ["index", "label", "views"]
  assert out["views"].shape == (8, 2, SIZE, SIZE, 3) and out["views"].dtype == jnp.float32


MOCO = jax.jit(augment.make("moco_v2", views=2, size=SIZE))


def test_a_batch_is_drawn_image_by_image(batch):
  key = jax.random.key(0)
  out = MOCO(key, batch)
  np.testing.assert_array_equal(out["label"], batch["label"])
  assert -1e-6 <= out["views"].min() and out["views"].max() <= 1 + 1e-6  # the blur comes last, and rounds
  np.testing.assert_array_equal(out["views"], MOCO(key, batch)["views"])
  assert not np.array_equal(out["views"], MOCO(jax.random.key(1), batch)["views"])
  assert not np.array_equal(out["views"][:, 0], out["views"][:, 1])
  other = {**batch, "image": np.concatenate([batch["image"][:4], batch["image"][:4]])}
  again = MOCO(key, other)["views"]
  np.testing.assert_array_equal(again[:4], out["views"][:4])  # image i depends on the key and i alone
  assert not np.array_equal(again[4:], again[:4])


def test_one_view_is_the_image(batch):
  make = augment.make("supervised", views=1, size=SIZE)
  out = jax.jit(make)(jax.random.key(0), batch)
  assert sorted(out) == ["image", "index", "label"] and out["image"].shape == (8, SIZE, SIZE, 3)
  identity = augment.make("none", views=1, size=32)
  same = identity(jax.random.key(0), batch)["image"]
  np.testing.assert_allclose(same, batch["image"] / np.float32(255), atol=1e-6)


@pytest.mark.parametrize("devices", (1, 8))
def test_views_cut_by_the_host_stay_apart(batch, devices, monkeypatch):
  """Only the flip is left to do, so each output equals the host's view or its mirror image."""
  monkeypatch.setattr(jax, "device_count", lambda: devices)
  views = np.stack([batch["image"], batch["image"][::-1]], 1)
  apply = jax.jit(augment.make("supervised", views=2, size=32, crop=False))
  out = np.asarray(apply(jax.random.key(0), {"image": views})["views"])
  wanted = views / np.float32(255)
  flipped = np.array([[np.allclose(o, w[:, ::-1]) for o, w in zip(a, b)] for a, b in zip(out, wanted)])
  kept = np.array([[np.allclose(o, w) for o, w in zip(a, b)] for a, b in zip(out, wanted)])
  assert (kept ^ flipped).all() and kept.any() and flipped.any()
  one = augment.make("supervised", views=1, size=32, crop=False)
  for image in (batch["image"], batch["image"][:, None]):
    assert jax.eval_shape(one, jax.random.key(0), {"image": image})["image"].shape == (8, 32, 32, 3)


def test_devices_do_not_matter(batch):
  """Eight devices with one image each give the views of one device, up to the rounding of another program."""
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  split = NamedSharding(mesh, PartitionSpec("data"))
  apply = augment.make("supervised", views=2, size=SIZE)
  out = jax.jit(apply, out_shardings=split)(
    jax.random.key(0), jax.device_put({"image": batch["image"]}, split)
  )
  alone = jax.jit(apply)(jax.random.key(0), {"image": batch["image"]})
  np.testing.assert_allclose(out["views"], alone["views"], atol=1e-6)


@pytest.mark.parametrize("way", ("one CPU device", "accelerator"))
def test_every_way_draws_the_same(batch, way, monkeypatch):
  """The loop of a single CPU device and the accelerators' program both agree with `vmap` on eight devices."""
  wanted = MOCO(jax.random.key(0), batch)["views"]
  if way == "one CPU device":
    monkeypatch.setattr(jax, "device_count", lambda: 1)
  else:
    monkeypatch.setattr(lax, "platform_dependent", lambda *args, cpu, default: default(*args))
  other = jax.jit(augment.make("moco_v2", views=2, size=SIZE))
  np.testing.assert_allclose(other(jax.random.key(0), batch)["views"], wanted, atol=2e-5)


def test_evaluation_is_the_centre_and_draws_nothing(batch):
  out = jax.eval_shape(lambda batch: augment.evaluation(size=24)(None, batch), batch)
  assert out["image"].shape == (8, 24, 24, 3) and out["image"].dtype == jnp.float32
  same = augment.evaluation(size=32)(None, batch)["image"]
  np.testing.assert_allclose(same, batch["image"] / np.float32(255), atol=1e-6)


@pytest.mark.parametrize(
  "options, message",
  (
    (
      dict(name="moco_v3", views=2),
      "no augmentation is called 'moco_v3'; did you mean 'moco_v[12]'.*known: adjacent, ",
    ),
    (dict(name="moco_v2"), "config.augment.views is missing; set it"),
    (dict(name="moco_v2", views=0), "config.augment.views is 0; use at least 1"),
    (dict(name="study", views=3), "config.augment.views is 3, but 'study' makes pairs; use views=2"),
    (dict(name="moco_v2", views=2, sise=32), "config.augment.sise is unknown; did you mean 'size'"),
    (
      dict(name="simclr", views=2, strength="much"),
      "config.augment.strength is 'much' of type str; use a value of type float",
    ),
    (dict(name="simclr", views=2, definition="pf"), "config.augment.definition is 'pf'.*known: pt, tf"),
    (
      dict(name="moco_v2", views=2, scale=(0.9, 0.1)),
      r"scale is \(0.9, 0.1\); .* 0 < least <= greatest <= 1",
    ),
    (dict(name="moco_v2", views=2, size=0), "config.augment.size is 0; use at least 1"),
  ),
)
def test_wrong_options_are_refused_before_anything_compiles(options, message):
  with pytest.raises(ValueError, match=message):
    augment.make(**options)


@pytest.mark.parametrize(
  "options, shape, message",
  (
    (
      dict(),
      (8, 2, 16, 16, 3),
      r"\[8, 2, 16, 16, 3\], but with crop=True it must hold whole images .* set crop=False",
    ),
    (dict(crop=False), (8, 16, 16, 3), r"with crop=False and views=2 it must be \[B, 2, S, S, 3\]"),
    (dict(crop=False), (8, 3, 16, 16, 3), r"with crop=False and views=2 it must be \[B, 2, S, S, 3\]"),
    (dict(crop=False), (8, 2, 20, 20, 3), r"takes views of \[16, 16, 3\] .* not \[20, 20, 3\]; set size=20"),
  ),
)
def test_wrong_batches_are_refused(options, shape, message):
  apply = augment.make("moco_v2", views=2, size=SIZE, **options)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(apply, jax.random.key(0), {"image": jnp.zeros(shape, jnp.uint8)})


def test_a_batch_without_images_is_refused():
  with pytest.raises(ValueError, match="the batch has no 'image' to augment; it only has 'label', 'video'"):
    augment.make("moco_v2", views=2)(jax.random.key(0), {"video": 0, "label": 0})
