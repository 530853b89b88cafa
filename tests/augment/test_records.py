"""Whole-record augmentation: image, mask, boxes, points and clips move with one draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment
from ssl_jax.augment import colour, crops, record_moves, records
from ssl_jax.augment.record_moves import IGNORE, Window
from ssl_jax.data.whole_image import resized_to

HEIGHT, WIDTH, SIZE = 40, 56, 32
CROP = records.record_crop(size=SIZE, scale=(0.2, 1.0))
JITTER = records.scale_jitter(size=SIZE, scale=(0.5, 2.0))
FIT = records.scale_jitter(size=SIZE, scale=(0.5, 2.0), relative="fit")
SHORTER = records.scale_jitter(size=SIZE, scale=(0.5, 2.0), relative="shorter", largest_class=0.75)
OBJECT = records.object_crop(size=SIZE)
RECIPES = {"crop": CROP, "object": OBJECT, "jitter": JITTER, "fit": FIT, "shorter": SHORTER}


def record() -> dict[str, jax.Array]:
  """Pixels tell their place by red and green, in the mask by column; a box frames a blue square."""
  row, column = np.mgrid[:HEIGHT, :WIDTH]
  image = np.stack([4 * column, 6 * row, np.zeros_like(row)], -1).astype(np.uint8)
  image[10:22, 20:34, 2] = 255
  clip = np.stack([image, image // 2, np.roll(image, 1, 0)])
  boxes = np.array([[20, 10, 34, 22], [0, 0, 0, 0]], np.float32)
  return {
    "image": jnp.asarray(image),
    "clip": jnp.asarray(clip),
    "mask": jnp.asarray(column.astype(np.uint8)),
    "boxes": jnp.asarray(boxes),
    "boxes_valid": jnp.array([True, False]),
    "boxes_class": jnp.array([3, 0]),
    "points": jnp.array([[27.0, 16.0], [55.5, 39.5]]),
    "points_valid": jnp.array([True, True]),
  }


@pytest.mark.parametrize("name", RECIPES)
def test_everything_moves_with_one_draw(name):
  one = jax.jit(RECIPES[name])
  flips, seen = 0, 0
  for i in range(40):
    made = jax.device_get(one(jax.random.key(i), record()))
    image, mask = made["image"], made["mask"]
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.float32 and mask.dtype == np.uint8
    inside = mask != IGNORE
    column = image[..., 0] * 255 / 4
    assert np.abs(column - mask)[inside].max() < 2.1  # the nearest pixel, and filtered by up to two
    flips += bool(column[inside][-1] < column[inside][0])
    np.testing.assert_allclose(made["clip"][0], image, atol=1e-6)
    assert made["boxes_class"].tolist() == [3, 0] and not made["boxes_valid"][1]
    if made["boxes_valid"][0]:
      x1, y1, x2, y2 = made["boxes"][0]
      blue = image[..., 2] > 0.9
      blue &= inside
      if blue.any():
        rows, columns = np.flatnonzero(blue.any(1)), np.flatnonzero(blue.any(0))
        assert rows[0] >= y1 - 1 and rows[-1] + 1 <= y2 + 1
        assert columns[0] >= x1 - 1 and columns[-1] + 1 <= x2 + 1
        seen += 1
    if made["points_valid"][0]:
      x, y = np.minimum(made["points"][0].astype(int), SIZE - 1)
      assert image[y, x, 2] > 0.5  # the middle of the square
  assert 8 < flips < 32 and seen > 20


def test_the_same_key_makes_the_same_record_and_vmap_agrees():
  keys = jax.random.split(jax.random.key(5), 3)
  batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), record())
  together = jax.jit(jax.vmap(CROP))(keys, batch)
  for i, key in enumerate(keys):
    alone = CROP(key, record())
    for name, leaf in alone.items():
      np.testing.assert_allclose(together[name][i], leaf, atol=1e-5, err_msg=name)


def test_a_window_in_whole_pixels_is_a_crop():
  image = record()["image"]
  for flip in (False, True):
    window = Window(*(jnp.float32(v) for v in (5, 7, 30, 40)), jnp.array(flip))
    found = record_moves.move_image(image, window, jnp.array([HEIGHT, WIDTH]), SIZE, record_moves.MEAN, 2.0)
    box = crops.Box(*(jnp.int32(v) for v in (5, 7, 30, 40)))
    expected = crops.crop_resize(image, box, SIZE, flip=flip)
    # A crop's filter stops at its border, the window's reads on: the inner pixels are the same.
    np.testing.assert_allclose(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-5)


def test_the_whole_image_is_the_image():
  square = record()["image"][:, :HEIGHT]
  window = Window(*(jnp.float32(v) for v in (0, 0, HEIGHT, HEIGHT)), jnp.array(False))
  bounds = jnp.array([HEIGHT, HEIGHT])
  found = record_moves.move_image(square, window, bounds, HEIGHT, record_moves.MEAN, 1.0)
  np.testing.assert_allclose(found, np.asarray(square, np.float32) / 255, atol=1e-6)
  numbers = jnp.arange(HEIGHT * HEIGHT).reshape(HEIGHT, HEIGHT)
  np.testing.assert_array_equal(record_moves.move_mask(numbers, window, bounds, HEIGHT), numbers)
  mirrored = window._replace(flip=jnp.array(True))
  np.testing.assert_array_equal(record_moves.move_mask(numbers, mirrored, bounds, HEIGHT), numbers[:, ::-1])


def test_padding_is_filled_and_ignored():
  """An image that fills the upper left of its canvas: nothing beyond it is read, whatever lies there."""
  made = []
  for beyond in (0, 255):
    canvas = np.full((64, 64, 3), beyond, np.uint8)
    canvas[:20, :30] = 100
    one = {
      "image": jnp.asarray(canvas),
      "mask": jnp.ones((64, 64), jnp.uint8),
      "image_size": jnp.array([20, 30], jnp.int32),
    }
    made.append(jax.device_get(JITTER(jax.random.key(3), one)))
    assert set(made[-1]) == {"image", "mask"}
  for name in made[0]:
    np.testing.assert_array_equal(made[0][name], made[1][name])
  outside = made[0]["mask"] == IGNORE
  assert 0 < outside.mean() < 1 and (made[0]["mask"][~outside] == 1).all()
  np.testing.assert_allclose(
    made[0]["image"][outside], np.tile(record_moves.MEAN, (outside.sum(), 1)), atol=1e-6
  )
  np.testing.assert_allclose(made[0]["image"][~outside], 100 / 255, atol=1e-5)


def disk_in_its_box(full: np.ndarray, box, cells: int) -> np.ndarray:
  """By numpy: bool[cells, cells], the mask at the centres of equal cells of a box."""
  x, y = (box[i] + (np.arange(cells) + 0.5) / cells * (box[i + 2] - box[i]) for i in (0, 1))
  return full[np.minimum(y.astype(int), len(full) - 1)][:, np.minimum(x.astype(int), full.shape[1] - 1)]


def with_masks(cells: int) -> tuple[dict[str, jax.Array], np.ndarray]:
  """(A record with a blob, an object without a mask and a row of padding; the blob's mask)."""
  row, column = np.mgrid[:160, :200] + 0.5
  full = ((row - 80) / 60) ** 2 + ((column - 90) / 50) ** 2 < 1
  full &= ~((row > 70) & (column > 100))  # no symmetry
  box = [40, 20, 140, 140]
  masks = np.stack([disk_in_its_box(full, box, cells), *np.zeros((2, cells, cells), bool)]).astype(np.uint8)
  return {
    "image": jnp.zeros((160, 200, 3), jnp.uint8),
    "mask": jnp.asarray(full.astype(np.uint8)),
    "boxes": jnp.array([box, [50, 40, 60, 60], [0, 0, 0, 0]], jnp.float32),
    "boxes_mask": jnp.asarray(masks),
    "boxes_valid": jnp.array([True, True, False]),
  }, full


@pytest.mark.parametrize("name", ["crop", "jitter"])
def test_masks_of_boxes_move_as_the_whole_mask(name):
  """The moved mask of the image, cut to the moved box, is the moved mask of the box."""
  made_by = {
    "crop": records.record_crop(size=160, scale=(0.1, 1.0)),
    "jitter": records.scale_jitter(size=160, scale=(0.5, 2.0)),
  }
  one, clipped, compared = with_masks(80)[0], 0, 0
  augmented = jax.jit(made_by[name])
  for i in range(60):
    made = jax.device_get(augmented(jax.random.key(i), one))
    assert made["boxes_mask"].dtype == np.uint8 and not made["boxes_mask"][1:].any()
    if not made["boxes_valid"][0]:
      assert (made["mask"] == 1).sum() < 30
      continue
    box, whole = made["boxes"][0], made["mask"] == 1
    if min(box[2:] - box[:2]) < 12:
      continue  # a pixel is a large part of such a box
    expected = disk_in_its_box(whole, box, 80)
    wrong = (made["boxes_mask"][0] != expected).mean()
    assert wrong < 0.02 + 1.5 / min(box[2:] - box[:2]), (i, wrong)
    clipped += bool(box.min() == 0 or box.max() == 160)
    compared += 1
  assert clipped > 15 and compared - clipped > 3


def test_masks_of_boxes_that_are_not_clipped_are_kept_or_mirrored_exactly():
  one, _ = with_masks(28)
  for flip in (False, True):
    window = Window(*(jnp.float32(v) for v in (-3.7, 1.3, 190.1, 220.9)), jnp.array(flip))
    made = record_moves.move(one, window, 96, record_moves.MEAN, 3.0)
    masks = np.asarray(one["boxes_mask"])
    np.testing.assert_array_equal(made["boxes_mask"], masks[:, :, ::-1] if flip else masks)
    assert made["boxes_valid"].tolist() == [True, True, False]
  corner = Window(*(jnp.float32(v) for v in (130, 130, 30, 30)), jnp.array(False))
  made = record_moves.move(one, corner, 96, record_moves.MEAN, 3.0)
  assert made["boxes"][0, 2] > 0 and not made["boxes_mask"][0].any()
  assert made["boxes_valid"].tolist() == [False, False, False]  # the box's corner shows nothing of the object


def test_scale_jitter_draws_its_factor_uniformly():
  points = {"image": jnp.zeros((200, 200, 3), jnp.uint8), "points": jnp.array([[0.0, 0.0], [10.0, 0.0]])}
  one = jax.jit(records.scale_jitter(size=64, scale=(0.5, 2.0), flip=0.0))
  made = [one(jax.random.key(i), points)["points"] for i in range(300)]
  factors = np.array([float(p[1, 0] - p[0, 0]) / 10 for p in made])
  assert 0.5 <= factors.min() < 0.53 and 1.95 < factors.max() <= 2.0
  assert abs(factors.mean() - 1.25) < 0.08


@pytest.mark.parametrize("relative, factor", [("pixels", 1.0), ("shorter", SIZE / 20), ("fit", SIZE / 30)])
def test_what_factor_one_means(relative, factor):
  """The image is the upper left 20 x 30 pixels of its canvas, which takes no part."""
  one = {
    "image": jnp.zeros((HEIGHT, WIDTH, 3), jnp.uint8),
    "image_size": jnp.array([20, 30], jnp.int32),
    "points": jnp.array([[2.0, 3.0], [12.0, 8.0]]),
  }
  for scale in (0.5, 1.0, 2.0):
    jitter = records.scale_jitter(size=SIZE, scale=(scale, scale), relative=relative, flip=0.0)
    first, second = jitter(jax.random.key(0), one)["points"]
    np.testing.assert_allclose(second - first, np.array([10, 5]) * factor * scale, rtol=1e-5)


def test_a_window_may_be_lower_than_wide():
  """At factor 1 it is a part of the image, anywhere in it, and the mask's part is the same."""
  rows, columns = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
  one = {
    "image": jnp.asarray(np.stack([rows, columns, 0 * rows], -1) * 4, jnp.uint8),
    "mask": jnp.asarray(rows, jnp.uint8),
  }
  jitter = jax.jit(records.scale_jitter(size=32, height=16, scale=(1.0, 1.0), flip=0.0))
  corners = []
  for i in range(40):
    made = jax.device_get(jitter(jax.random.key(i), one))
    places = made["image"][..., :2] * (255 / 4)  # of the pixels in the image, up to a fraction
    corners.append(places[0, 0])
    np.testing.assert_allclose(places - places[0, 0], np.stack([rows, columns], -1)[:16, :32], atol=1e-3)
    assert np.abs(made["mask"] - places[..., 0]).max() <= 0.5 + 1e-3
  assert (np.min(corners, 0) < 4).all() and (np.max(corners, 0) > (20, 22)).all()  # of 24 and 28


@pytest.mark.parametrize("relative, side", [("pixels", SIZE), ("shorter", HEIGHT), ("fit", WIDTH)])
def test_the_least_factor_has_enough_taps(relative, side):
  """The bound on the filter's length follows from the sides of the arrays: a longer one changes nothing."""
  least, image, bounds = 0.4, record()["image"], jnp.array([HEIGHT, WIDTH])
  jitter = records.scale_jitter(size=SIZE, scale=(least, least), relative=relative, flip=0.0)
  whole = Window(*(jnp.float32(v) for v in (0, 0, side / least, side / least)), jnp.array(False))
  expected = record_moves.move_image(image, whole, bounds, SIZE, record_moves.MEAN, 20.0)
  np.testing.assert_allclose(jitter(jax.random.key(0), {"image": image})["image"], expected, atol=1e-5)


def place_of(jitter, mask: np.ndarray):
  """(keys -> made mask and made place of the input's origin), compiled once for many keys."""
  one = {"mask": jnp.asarray(mask), "points": jnp.zeros((1, 2))}
  run = jax.jit(jax.vmap(lambda key: jitter(key, one)))
  made = run(jax.random.split(jax.random.key(2), 100))
  return np.asarray(made["mask"]), np.asarray(made["points"])[:, 0]


def jitter_with(limit: float):
  return records.scale_jitter(size=SIZE, scale=(1.0, 1.0), flip=0.0, largest_class=limit)


def largest_fractions(masks: np.ndarray) -> np.ndarray:
  """By numpy: the largest class of each mask over the pixels that have a class."""
  kept = [mask[mask != IGNORE] for mask in masks]
  return np.array([np.unique(m, return_counts=True)[1].max() / m.size for m in kept])


def test_no_class_covers_more_than_the_limit():
  """Two classes side by side; the border between them lies in half of the windows, up to rounding."""
  mask = np.where(np.arange(64) < 40, 1, 2).astype(np.uint8)[None].repeat(64, 0)
  mask[::3] = IGNORE
  free, _ = place_of(jitter_with(1.0), mask)
  bound, places = place_of(jitter_with(0.75), mask)
  assert largest_fractions(free).max() == 1 and largest_fractions(bound).max() < 0.75
  assert places[:, 0].min() < -30 and places[:, 1].std() > 5  # all places that fit, and any row


def test_a_window_that_fits_is_the_first_and_ignored_pixels_are_not_counted():
  draw = np.random.default_rng(0)
  mask = np.where(draw.random((64, 64)) < 0.9, IGNORE, draw.integers(0, 2, (64, 64))).astype(np.uint8)
  free, places = place_of(jitter_with(1.0), mask)
  bound, same_places = place_of(jitter_with(0.75), mask)
  assert largest_fractions(free).max() < 0.75
  np.testing.assert_array_equal(bound, free)
  np.testing.assert_array_equal(same_places, places)


def test_a_window_without_any_class_does_not_fit():
  mask = np.full((64, 64), IGNORE, np.uint8)
  mask[:, 52:] = np.random.default_rng(0).integers(0, 2, (64, 12))
  free, bound = (place_of(jitter_with(limit), mask)[0] for limit in (1.0, 0.75))
  labelled = lambda masks: (masks != IGNORE).any((1, 2)).mean()
  assert labelled(free) < 0.6 and labelled(bound) > 0.9  # a place has a class in 3 of 8


@pytest.mark.parametrize("value", [7, IGNORE])
def test_where_no_window_fits_another_is_drawn(value):
  masks, places = place_of(jitter_with(0.75), np.full((64, 64), value, np.uint8))
  assert (masks == value).all() and (places <= 0).all() and (places >= -32).all()
  assert (places.std(0) > 7).all()  # uniform over 32 pixels: 9.2


PHOTOMETRIC = records.scale_jitter(size=SIZE, scale=(0.5, 2.0), photometric=True)


def test_photometric_distortion_changes_the_colours_alone():
  alone, plain = jax.jit(PHOTOMETRIC), jax.jit(JITTER)
  changed = 0
  for i in range(12):
    key = jax.random.key(i)
    found, expected = jax.device_get((alone(key, record()), plain(key, record())))
    inside = (expected["mask"] != IGNORE)[..., None]
    for name in set(expected) - {"image", "clip"}:
      np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    drawn = colour.sample_distortion(jax.random.split(key, 4)[3])
    planes = jnp.asarray(expected["image"].transpose(2, 1, 0))
    distorted = np.asarray(colour.distort(planes, drawn)).transpose(2, 1, 0)
    np.testing.assert_allclose(found["image"], np.where(inside, distorted, record_moves.MEAN), atol=1e-5)
    np.testing.assert_allclose(found["clip"][0], found["image"], atol=1e-6)  # all frames with one draw
    changed += bool(np.abs(found["image"] - expected["image"]).max() > 0.02)
  assert 8 < changed < 12  # 15 of 16, and some draws are small


@pytest.mark.parametrize("name", ["shorter", "photometric"])
def test_one_record_and_many_agree(name):
  one = {**RECIPES, "photometric": PHOTOMETRIC}[name]
  keys = jax.random.split(jax.random.key(6), 4)
  batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), record())
  together = jax.jit(jax.vmap(one))(keys, batch)
  for i, key in enumerate(keys):
    alone = jax.jit(one)(key, record())
    for entry, leaf in alone.items():
      np.testing.assert_allclose(together[entry][i], leaf, atol=1e-5, err_msg=entry)


def test_each_frame_has_its_own_draw_or_all_have_one():
  """The frames of the clip are equal, so that they differ only by what was drawn."""
  clip = {"clip": jnp.stack([record()["image"]] * 3), "label": jnp.array(4)}
  for photometric in (False, True):
    options = dict(size=SIZE, scale=(0.5, 1.0), photometric=photometric)
    alike = jax.jit(records.record_crop(**options))
    each = jax.jit(records.record_crop(**options, each_frame=True))
    for i in range(4):
      key = jax.random.key(i)
      one, found = np.asarray(alike(key, clip)["clip"]), jax.device_get(each(key, clip))
      assert np.abs(one - one[:1]).max() == 0 and int(found["label"]) == 4
      assert min(np.abs(found["clip"][a] - found["clip"][b]).mean() for a, b in ((0, 1), (1, 2))) > 0.01
      for k, frame_key in enumerate(jax.random.split(key, 3)):
        np.testing.assert_allclose(found["clip"][k], alike(frame_key, clip)["clip"][0], atol=1e-6)


def test_a_crop_with_other_colours_is_the_same_crop():
  plain = jax.jit(records.record_crop(size=SIZE))
  coloured = jax.jit(records.record_crop(size=SIZE, photometric=True))
  changed = 0
  for i in range(12):
    found, expected = (f(jax.random.key(i), record()) for f in (coloured, plain))
    np.testing.assert_array_equal(found["mask"], expected["mask"])
    np.testing.assert_array_equal(found["boxes"], expected["boxes"])
    changed += bool(np.abs(found["image"] - expected["image"]).max() > 0.02)
  assert 8 < changed <= 12


@pytest.mark.parametrize(
  "entries, what", [(("points_valid",), "no clip"), (("clip", "mask", "image"), "image, mask")]
)
def test_only_clips_are_moved_frame_by_frame(entries, what):
  one = records.record_crop(size=SIZE, each_frame=True)
  with pytest.raises(ValueError, match=f"but the record has {what}; use each_frame=False"):
    one(jax.random.key(0), {name: record()[name] for name in entries})


def test_a_batch_of_records_goes_through_the_registry():
  made = augment.make("record_crop", views=1, size=SIZE)
  batch = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), record())
  out = jax.jit(made)(jax.random.key(0), batch)
  assert out["image"].shape == (4, SIZE, SIZE, 3) and out["mask"].shape == (4, SIZE, SIZE)
  assert out["clip"].shape == (4, 3, SIZE, SIZE, 3) and out["boxes"].shape == (4, 2, 4)
  alone = records.record_crop(size=SIZE)(jax.random.fold_in(jax.random.key(0), 2), record())
  np.testing.assert_allclose(out["image"][2], alone["image"], atol=1e-5)
  assert {"record_crop", "scale_jitter"} <= set(augment.known())


def test_what_makes_no_sense_is_refused():
  for options, message in (
    (dict(scale=(0.0, 1.0)), "config.augment.scale is"),
    (dict(flip=1.5), "config.augment.flip is 1.5"),
    (dict(size=0), "config.augment.size is 0"),
  ):
    with pytest.raises(ValueError, match=message):
      augment.make("record_crop", views=1, **options)
  for limit in (0.0, 75.0):
    with pytest.raises(ValueError, match=f"largest_class is {limit}; use a fraction of the window"):
      augment.make("scale_jitter", views=1, largest_class=limit)
  with pytest.raises(
    ValueError, match="is 0.75, but the records have no 'mask' to count classes in, only im"
  ):
    SHORTER(jax.random.key(0), {"image": jnp.zeros((8, 8, 3))})
  with pytest.raises(ValueError, match="views is 2, but 'scale_jitter' moves whole records; use views=1"):
    augment.make("scale_jitter", views=2)
  with pytest.raises(ValueError, match="no 'image', 'clip' or 'mask' to augment, only label"):
    CROP(jax.random.key(0), {"label": jnp.zeros(())})


RESIZED = records.resize_shorter(size=48, height=40, shorter=(20, 30), longest=44)


def test_a_resized_image_fills_its_part_of_the_canvas_mirrored_or_not():
  """The image of 40 x 56 becomes 20 x 28 or, because of `longest`, 30 x 42, always in the upper left."""
  one, seen = jax.jit(RESIZED), set()
  for i in range(30):
    made = jax.device_get(one(jax.random.key(i), record()))
    height, width = made["image_size"].tolist()
    assert made["image"].shape == (40, 48, 3) and (height, width) in {(20, 28), (30, 42)}
    inside = made["mask"] != IGNORE
    assert inside[:height, :width].all() and inside.sum() == height * width
    np.testing.assert_allclose(
      made["image"][height:], np.broadcast_to(record_moves.MEAN, (40 - height, 48, 3))
    )
    column = made["image"][:height, :width, 0] * 255 / 4
    flipped = bool(column[0, -1] < column[0, 0])
    seen.add((height, flipped))
    scale = width / WIDTH
    x = np.array([WIDTH - 34, WIDTH - 20]) if flipped else np.array([20, 34])
    np.testing.assert_allclose(made["boxes"][0, ::2], x * scale, rtol=1e-5)
    np.testing.assert_allclose(made["boxes"][0, 1::2], np.array([10, 22]) * height / HEIGHT, rtol=1e-5)
    assert made["points_valid"].all()
  assert len(seen) == 4


@pytest.mark.parametrize("sides", [(40, 56), (80, 20), (33, 47)])
def test_sides_after_resizing_are_those_that_the_evaluation_makes(sides):
  for shorter, longest in ((30, 44), (50, 90), (17, 1000)):
    found = records.resized_sides(jnp.array(sides), jnp.float32(shorter), longest, (1000, 1000))
    assert tuple(found.tolist()) == resized_to(shorter, longest, *sides)


def test_an_image_that_exceeds_the_canvas_is_reduced_until_it_fits():
  found = records.resized_sides(jnp.array([400, 300]), jnp.float32(300), 1000, (200, 1000))
  assert found.tolist() == [200, 150]


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(shorter=()), r"config.augment.shorter must be positive lengths in pixels, but has 0"),
    (dict(longest=0), "config.augment.longest must be .* but has 0"),
    (dict(height=-1), "config.augment.height is -1"),
    (dict(size=0), "config.augment.size is 0"),
  ],
)
def test_wrong_options_of_resizing_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    records.resize_shorter(**options)


def with_object(top: int, left: int, bottom: int, right: int) -> dict[str, jax.Array]:
  """A record whose mask has an object in this rectangle, and a pixel without a label elsewhere."""
  mask = np.zeros((HEIGHT, WIDTH), np.uint8)
  mask[top:bottom, left:right] = 1
  mask[0, 0] = IGNORE
  return {**record(), "mask": jnp.asarray(mask)}


@pytest.mark.parametrize("proportions", ["square", "image"])
def test_an_object_is_seen_whole_at_the_scale_of_its_context(proportions):
  options = dict(size=SIZE, context=(2.0, 2.0), shift=0, jitter=0.0, proportions=proportions)
  one = jax.jit(records.object_crop(**options))
  flips = 0
  for i in range(8, 16):
    made = one(jax.random.key(i), with_object(14, 20, 24, 34))
    assert made["image"].shape == (SIZE, SIZE, 3) and made["mask"].dtype == np.uint8
    rows, columns = (np.flatnonzero((made["mask"] == 1).any(axis)) for axis in (1, 0))
    # square: the window has 28 x 28 pixels; image: 14 / 56 is as much as 10 / 40, so that half of both moves
    assert len(columns) == SIZE // 2 and len(rows) == (SIZE // 2 if proportions == "image" else 12)
    assert abs(columns.mean() - (SIZE - 1) / 2) <= 1 and abs(rows.mean() - (SIZE - 1) / 2) <= 1
    red = np.asarray(made["image"][SIZE // 2, :, 0])
    flips += bool(red[0] > red[-1])
  assert 0 < flips < 8


def test_objects_are_shifted_and_scaled_within_the_image():
  one = jax.jit(records.object_crop(size=SIZE, context=(1.5, 2.0), shift=8, flip=0.0))
  found = [one(jax.random.key(i), with_object(30, 44, 40, 56)) for i in range(20)]
  areas = [float((made["mask"] == 1).mean()) for made in found]
  assert len(set(areas)) > 5 and 0.05 < min(areas) and max(areas) < 0.7
  for made in found:  # in the corner the window is pushed back into the image, where there is no padding
    assert (made["mask"] != IGNORE).all()
    inside = np.asarray(made["mask"]) == 1
    assert inside[-1, -1] and not inside[0, 0]


def test_an_image_without_an_object_or_with_a_large_one_is_seen_whole():
  whole = with_object(0, 0, 0, 0)
  for proportions, visible in (("image", SIZE), ("square", round(SIZE * HEIGHT / WIDTH))):
    one = records.object_crop(size=SIZE, proportions=proportions, flip=0.0)
    nothing = one(jax.random.key(1), whole)
    large = one(jax.random.key(2), with_object(2, 2, 38, 54))
    np.testing.assert_allclose(nothing["image"], large["image"], atol=1e-6)
    rows = (np.asarray(large["mask"]) != IGNORE).any(1)
    assert abs(rows.sum() - visible) <= 1
    column = np.asarray(nothing["image"][SIZE // 2, :, 0]) * 255 / 4
    np.testing.assert_allclose(column, (np.arange(SIZE) + 0.5) * WIDTH / SIZE - 0.5, atol=1.0)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(context=(0.5, 2.0)), r"config.augment.context is \(0.5, 2.0\); use factors with 1 <= least"),
    (dict(shift=-1), "config.augment.shift is -1; use 0 for none"),
    (dict(jitter=-0.1), "config.augment.jitter is -0.1"),
  ],
)
def test_refusals_of_object_crop(options, message):
  with pytest.raises(ValueError, match=message):
    records.object_crop(**options)


def test_object_crop_needs_a_mask():
  bare = {"image": record()["image"]}
  with pytest.raises(ValueError, match="the records have no 'mask' to find the object in, only image"):
    records.object_crop(size=SIZE)(jax.random.key(0), bare)
