"""Recipes: the published order of operations, the published frequencies, the effect of each option."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment import crops, ops, pairs, recipes
from ssl_jax.config.checked import defaults_of

SIZE = 16


def same(actual, wanted, tolerance=2e-5):
  np.testing.assert_allclose(np.asarray(actual), np.asarray(wanted), rtol=0, atol=tolerance)


def drawn(key, image, *, scale, sampler):
  """Returns the box and the flip that a recipe draws from its crop key."""
  box_key, flip_key = jax.random.split(key)
  return sampler(box_key, *image.shape[:2], scale=scale), jax.random.bernoulli(flip_key)


def moco_v1(key, image):
  """The order of the released code as a sequence of public operations, with the flip last."""
  crop_key, rest_key = jax.random.split(key)
  box, flip = drawn(crop_key, image, scale=(0.2, 1.0), sampler=crops.sample_crop_pt)
  gray_key, jitter_key = jax.random.split(rest_key)
  x = crops.crop_resize(image, box, SIZE)
  x = ops.random_grayscale(gray_key, x, p=0.2)
  x = ops.random_jitter(jitter_key, x, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, p=1.0)
  return jnp.where(flip, ops.flip(x), x)


def moco_v2(key, image):
  crop_key, rest_key = jax.random.split(key)
  box, flip = drawn(crop_key, image, scale=(0.2, 1.0), sampler=crops.sample_crop_pt)
  jitter_key, gray_key, blur_key = jax.random.split(rest_key, 3)
  x = crops.crop_resize(image, box, SIZE)
  x = ops.random_jitter(jitter_key, x, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8)
  x = ops.random_grayscale(gray_key, x, p=0.2)
  x = ops.random_gaussian_blur(blur_key, x, p=0.5, sigma=(0.1, 2.0))
  return jnp.where(flip, ops.flip(x), x)


def simclr(key, image, *, strength=1.0, additive=True, blurred=True):
  crop_key, rest_key = jax.random.split(key)
  box, flip = drawn(crop_key, image, scale=(0.08, 1.0), sampler=crops.sample_crop_tf)
  jitter_key, gray_key, blur_key = jax.random.split(rest_key, 3)
  x = crops.crop_resize(image, box, SIZE, method="bicubic", antialias=False)
  x = jnp.where(flip, ops.flip(x), x)
  s = strength
  x = ops.random_jitter(
    jitter_key,
    x,
    brightness=0.8 * s,
    contrast=0.8 * s,
    saturation=0.8 * s,
    hue=0.2 * s,
    p=0.8,
    definition="tf",
    additive=additive,
  )
  x = ops.random_grayscale(gray_key, x, p=0.2, definition="tf")
  return ops.random_gaussian_blur(blur_key, x, p=0.5, sigma=(0.1, 2.0), definition="tf") if blurred else x


CASES = {
  "moco_v1": (recipes.moco_v1, {}, moco_v1),
  "moco_v2": (recipes.moco_v2, {}, moco_v2),
  "simclr": (recipes.simclr, {}, simclr),
  "simclr v2 for CIFAR-10": (
    recipes.simclr,
    {"brightness": "v2", "strength": 0.5, "blur": False},
    functools.partial(simclr, additive=False, strength=0.5, blurred=False),
  ),
}


def test_a_padded_crop_is_a_window_of_the_padded_image_or_its_mirror_image(square):
  view = jax.jit(lambda keys: jax.vmap(lambda key: recipes.padded_crop(size=32, pad=2)(key, square))(keys))
  padded = np.pad(square / np.float32(255), ((2, 2), (2, 2), (0, 0)))
  windows = {
    (top, left, flip): padded[top : top + 32, left : left + 32][:, :: -1 if flip else 1]
    for top in range(5)
    for left in range(5)
    for flip in (False, True)
  }
  seen = set()
  for made in np.asarray(view(jax.random.split(jax.random.key(0), 120))):
    where = [name for name, window in windows.items() if np.allclose(made, window, atol=1e-6)]
    assert len(where) == 1
    seen.add(where[0])
  assert len(seen) > 35  # of 50
  with pytest.raises(ValueError, match="config.augment.size 40 does not fit an image of 32 x 32 with pad 2"):
    recipes.padded_crop(size=40, pad=2)(jax.random.key(0), square)


@pytest.mark.parametrize("name", CASES)
def test_recipe_is_the_published_sequence(square, name):
  recipe, options, published = CASES[name]
  keys = jax.random.split(jax.random.key(5), 12)
  each = lambda view: jax.jit(lambda keys: jax.lax.map(lambda key: view(key, square), keys))(keys)
  got, wanted = each(recipe(size=SIZE, **options)), each(published)
  assert got.shape == (12, SIZE, SIZE, 3) and got.dtype == jnp.float32
  same(got, wanted)
  assert 0 <= got.min() and got.max() <= 1
  assert len(np.unique(np.asarray(got).reshape(12, -1), axis=0)) == 12


def test_what_the_host_cropped_is_only_recoloured_and_flipped(square):
  """With crop=False the draws after the crop stay the same and apply to the view as the host sent it."""
  view = square[:SIZE, :SIZE]
  ramp = np.repeat(np.arange(SIZE, dtype=np.uint8)[None, :, None], SIZE, 0).repeat(3, 2)
  kept = jax.jit(jax.vmap(recipes.supervised(size=SIZE, crop=False), (0, None)))
  out = np.asarray(kept(jax.random.split(jax.random.key(0), 64), ramp))
  assert all(np.allclose(o, ramp / 255) or np.allclose(o, ramp[:, ::-1] / 255) for o in out)
  assert 20 < sum(np.allclose(o, ramp / 255) for o in out) < 44
  key = jax.random.key(3)
  gray_key, jitter_key = jax.random.split(jax.random.split(key)[1])
  x = ops.random_grayscale(gray_key, view.astype(np.float32) / 255, p=0.2)
  x = ops.random_jitter(jitter_key, x, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, p=1.0)
  out = recipes.moco_v1(size=SIZE, crop=False)(key, view)
  assert np.allclose(out, x, atol=2e-5) or np.allclose(out, ops.flip(x), atol=2e-5)
  with pytest.raises(ValueError, match=r"takes views of \[16, 16, 3\] .* not \[32, 32, 3\]; set size=32"):
    recipes.moco_v1(size=SIZE, crop=False)(key, square)


def test_frequencies_of_moco_v2(square):
  """One fifth of the views is grey; 0.2 x 0.8 of them are neither jittered nor grey and keep their colour."""
  image = jnp.broadcast_to(jnp.array([200, 100, 50], jnp.uint8), (8, 8, 3))
  keys = jax.random.split(jax.random.key(0), 3000)
  views = np.asarray(
    jax.jit(lambda keys: jax.lax.map(lambda k: recipes.moco_v2(size=8)(k, image), keys))(keys)
  )
  gray = np.isclose(views[..., 0], views[..., 2], atol=1e-4).all((1, 2)).mean()
  untouched = np.isclose(views, np.asarray(image)[None] / 255, atol=1e-4).all((1, 2, 3)).mean()
  assert abs(gray - 0.2) < 0.03 and abs(untouched - 0.16) < 0.03


def test_none_changes_nothing(square):
  np.testing.assert_array_equal(
    recipes.none(size=32)(jax.random.key(0), square), square.astype(np.float32) / 255
  )


def test_study_transforms_one_branch_only(square):
  """Both views are crops; the transforms are applied in order to the first view only."""

  def published(key):
    first_key, second_key, *_ = jax.random.split(key, 4)
    box = lambda key: drawn(
      jax.random.split(key)[0], square, scale=(0.08, 1.0), sampler=crops.sample_crop_tf
    )[0]
    cut = lambda key: crops.crop_resize(square, box(key), SIZE, method="bicubic", antialias=False)
    return jnp.stack([ops.sobel(ops.grayscale(cut(first_key), definition="tf")), cut(second_key)])

  got = jax.jit(pairs.study(size=SIZE, transforms=("grayscale", "sobel")))(jax.random.key(2), square)
  same(got, jax.jit(published)(jax.random.key(2)))


WHOLE = dict(size=SIZE, scale=(1.0, 1.0), strength=0.0, grayscale=0.0, blur=0.0)


def views_of(image, count=64, **options):
  """Views of a square image that MoCo v2 neither crops, colours nor blurs unless `options` say so."""
  view = recipes.moco_v2(**{**WHOLE, **options})
  return np.asarray(jax.jit(jax.vmap(view, (0, None)))(jax.random.split(jax.random.key(4), count), image))


def test_moco_v2_without_its_operations_only_crops_and_flips(square):
  plain = recipes.supervised(size=SIZE, scale=(1.0, 1.0))
  keys = jax.random.split(jax.random.key(4), 64)
  same(views_of(square), jax.jit(jax.vmap(plain, (0, None)))(keys, square))


def test_moco_v2_turns_views_by_each_number_of_quarters(square):
  straight, turned = views_of(square), views_of(square, turns=True)
  quarters = [
    next(k for k in range(4) if np.abs(np.rot90(view, k) - other).max() < 1e-5)
    for view, other in zip(straight, turned)
  ]
  assert np.bincount(quarters, minlength=4).min() > 5


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_moco_v2_greys_as_many_views_as_it_is_told(square, share):
  grey = (np.ptp(views_of(square, 400, grayscale=share), axis=-1) < 1e-5).all((1, 2)).mean()
  assert abs(grey - share) < 0.08


def test_moco_v2_blurs_and_colours_as_much_as_it_is_told(square):
  plain = views_of(square)
  blurred = (np.abs(views_of(square, blur=0.5) - plain).max((1, 2, 3)) > 1e-4).mean()
  assert 0.3 < blurred < 0.7
  weak, strong = (np.abs(views_of(square, strength=s) - plain).mean() for s in (0.1, 1.0))
  assert 0 < 4 * weak < strong


@pytest.mark.parametrize("options", [dict(grayscale=1.5), dict(blur=-0.1), dict(strength=-1.0)])
def test_moco_v2_refuses_what_is_no_probability_or_strength(options):
  with pytest.raises(ValueError, match="must lie in .0, 1., and strength .* must not be negative"):
    recipes.moco_v2(**options)


def test_views_of_one_crop_differ_by_the_transforms_alone(square):
  pair = lambda **options: jax.jit(pairs.study(size=SIZE, **options))(jax.random.key(2), square)
  first, second = pair(one_crop=True)
  same(first, second)
  same(first, pair()[0])
  recropped, second = pair(one_crop=True, transforms=("crop",))
  same(second, first)
  assert np.abs(recropped - first).mean() > 0.02


@pytest.mark.parametrize("name", sorted(pairs.TRANSFORMS))
def test_transforms_of_the_study(square, name):
  """The result keeps the shape, lies in [0, 1] and differs from the image for at least one of eight keys."""
  images = jnp.broadcast_to(square / np.float32(255), (8, *square.shape))
  out = jax.jit(jax.vmap(pairs.TRANSFORMS[name]))(jax.random.split(jax.random.key(0), 8), images)
  assert out.shape == images.shape and out.min() >= 0 and out.max() <= 1
  assert not np.allclose(out, images, atol=0.01)


def test_study_refuses_an_unknown_transform():
  with pytest.raises(
    ValueError, match="no transform is called 'cutouts'; did you mean 'cutout'.*known: blur, crop, cutout"
  ):
    pairs.study(transforms=("cutouts",))


def test_pairs_show_the_related_parts_of_the_image():
  """Colours encode coordinates: the local view lies inside the global one, and adjacent views touch."""
  rows, columns = np.mgrid[:64, :64]
  image = np.stack([rows, columns, 0 * rows], 2).astype(np.uint8)
  keys = jax.random.split(jax.random.key(0), 40)
  draw = lambda pair: (
    np.asarray(jax.jit(jax.vmap(pair, (0, None)))(keys, image))[..., :2].reshape(40, 2, -1, 2) * 255
  )
  outer, inner = np.moveaxis(draw(pairs.global_local(size=64)), 1, 0)
  assert (inner.min(1) > outer.min(1) - 0.1).all() and (inner.max(1) < outer.max(1) + 0.1).all()
  a, b = np.moveaxis(draw(pairs.adjacent(size=64)), 1, 0)
  gap = np.maximum(a.min(1), b.min(1)) - np.minimum(a.max(1), b.max(1))
  np.testing.assert_allclose(gap.max(1), 1, atol=0.1)  # one view ends one pixel before the other begins ...
  assert (gap.min(1) < 0).all()  # ... and along the other axis they overlap


@pytest.mark.parametrize(
  "name, options",
  [
    ("moco_v1", {}),
    ("moco_v2", {}),
    ("simclr", {}),
    ("simclr", {"definition": "pt"}),
    ("supervised", {}),
    ("supervised", {"sampler": "byol", "method": "bicubic"}),
    ("supervised", {"sampler": "tf", "method": "bicubic", "antialias": False}),
    ("finetune", {}),
  ],
)
def test_the_host_cuts_crops_as_the_device_does(name, options, monkeypatch):
  used = []

  def cropper(size, scale, sampler, crop, *, method="bilinear", antialias=True, p_flip=0.5):
    used.append((sampler, method, antialias))

  monkeypatch.setattr(recipes, "cropper_of", cropper)
  recipes.VIEWS[name](**options)
  assert [recipes.host_crop(name, {**defaults_of(recipes.VIEWS[name]), **options})] == used


@pytest.mark.parametrize("name", ["none", "padded_crop", "study", "global_local", "adjacent"])
def test_recipes_that_the_host_cannot_cut_are_refused(name):
  with pytest.raises(ValueError, match=f"crop is 'host', but the augmentation '{name}'.*use .*crop='device'"):
    recipes.host_crop(name, {})
