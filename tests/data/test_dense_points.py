"""DensePose's annotation: reading, what is broken in it, its place in the frames of boxes, mirroring."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax.augment import record_moves, records
from ssl_jax.augment.record_moves import Window
from ssl_jax.data import body_parts, dense_points, host, sources
from ssl_jax.data.body_parts import SEGMENT_OF_PART
from tests import made_people
from tests.made_people import Pose

SIDE = 64
POSE = Pose((30.0, 34.0), 52.0, arms=(0.3, 0.9), legs=(0.1, 0.35))
OUT = Pose((50.0, 34.0), 52.0, arms=(1.2, 1.2))  # its left arm is beyond the border


def open_people(root, images, **options):
  made_people.write_people(root, images, **options)
  return sources.make("coco", data_dir=str(root), split="train")


def check_surface(made, row, pose, tolerance=0.02, width=SIDE):
  """The points of a row have the part, U and V that the figure has at their places."""
  box, valid = made["boxes"][row], made["boxes_points_valid"][row]
  places = box[:2] + made["boxes_points"][row][valid] * (box[2:] - box[:2])
  part, uv = made_people.surface(pose, places)
  same = part == made["boxes_points_part"][row][valid]
  assert same.mean() > 0.9, same.mean()  # rounding moves points over a border
  np.testing.assert_allclose(made["boxes_points_uv"][row][valid][same], uv[same], atol=tolerance)
  segments = made["boxes_segments"][row]
  part, _ = made_people.surface(pose, made_people.grid(box, *segments.shape))
  assert (SEGMENT_OF_PART[part].reshape(segments.shape) == segments).mean() > 0.97
  return valid


def test_the_figure_is_seen_by_the_reader_and_placed_by_the_host(tmp_path):
  source = open_people(tmp_path, [[POSE], [OUT, POSE]], bare=1)
  assert source.fields[-1] == "dense_points" and source.class_names == ("person",)
  assert source.most_rows == {"boxes": 2, "points": 60}
  assert source.left_out == "parts of 1 box outside their images"
  record = source[1]
  assert record["dense_points"][1] is None and len(record["dense_points"][0].points) == 60
  transform = host.image_densepose(host.Frame(SIDE), max_boxes=3, max_points=70, segment_size=56)
  host.check_source("image_densepose", transform, source)
  made = transform(None, source[0])
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in made.items()} == {
    name: (element.shape, element.dtype) for name, element in transform.elements.items()
  }
  assert check_surface(made, 0, POSE).sum() == 60
  assert not made["boxes_points_valid"][1:].any() and not made["boxes_segments"][1:].any()
  cut = transform(None, record)
  assert cut["boxes"][0, 2] == SIDE < made_people.box_of(OUT)[2]
  assert 20 < check_surface(cut, 0, OUT).sum() < 60  # points beyond the border are not seen
  assert not cut["boxes_points_valid"][1].any() and cut["boxes_valid"][1]
  smaller = host.image_densepose(host.Frame(SIDE // 2), max_boxes=3)(None, record)
  half = Pose((25.0, 17.0), 26.0, arms=OUT.arms)
  check_surface(smaller, 0, half)


def test_too_many_points_are_refused_before_anything_is_read(tmp_path):
  source = open_people(tmp_path, [[POSE]])
  transform = host.image_densepose(host.Frame(SIDE), max_points=59)
  with pytest.raises(
    ValueError, match="an object of the data set has 60 points, but config.host.max_points is"
  ):
    host.check_source("image_densepose", transform, source)
  with pytest.raises(ValueError, match="an object has 60 points, but config.host.max_points is 59; use 60"):
    transform(None, source[0])
  with pytest.raises(ValueError, match="config.host.segment_size is 0; use a positive number"):
    host.make("image_densepose", host.Frame(8), segment_size=0)
  (tmp_path / "bare").mkdir()
  bare = open_people(tmp_path / "bare", [[POSE]], bare=1)
  with pytest.raises(ValueError, match="needs 'dense_points' in every record"):
    host.check_source("image_densepose", transform, bare)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"dp_U": None}, "its points lack dp_U; DensePose needs dp_x, dp_y"),
    ({"dp_masks": None}, "its points lack dp_masks"),
    ({"dp_V": [0.5]}, "lists of different lengths: dp_x 60, dp_y 60, dp_I 60, dp_U 60, dp_V 1"),
    ({"dp_I": [25.0] * 60}, "dp_I of a point is 25; use 1 to 24"),
    ({"dp_I": [0] * 60}, "dp_I of a point is 0; use 1 to 24"),
    ({"dp_I": [2.5] * 60}, "dp_I of a point is 2.5; use a whole number"),
    ({"dp_U": [1.2] * 60}, "dp_U of a point is 1.2; use 0 to 1"),
    ({"dp_V": [float("nan")] * 60}, "dp_V of a point is nan"),
    ({"dp_x": [float("inf")] * 60}, "dp_x or dp_y of a point is not a finite"),
    ({"dp_x": ["a"] * 60}, "could not convert string"),
    ({"dp_masks": [[]] * 13}, "dp_masks has 13 masks; it needs 14"),
    ({"dp_masks": [{"size": [8, 9], "counts": [72]}] + [[]] * 13}, "mask 1 of dp_masks has 8x9 pixels"),
  ],
)
def test_what_is_broken_is_named(tmp_path, change, message):
  path = made_people.write_people(tmp_path, [[POSE]])
  stored = json.loads(path.read_text())
  stored["annotations"][0] |= change
  path.write_text(json.dumps(stored))
  with pytest.raises(ValueError, match=rf"train.json: annotation 1: .*{message}"):
    sources.make("coco", data_dir=str(tmp_path), split="train")


def test_what_can_be_repaired_is_counted(tmp_path):
  path = made_people.write_people(tmp_path, [[POSE]])
  stored = json.loads(path.read_text())
  one = stored["annotations"][0]
  one["dp_x"][:3], one["dp_U"][5] = [-1, 257, 0], 1.005
  path.write_text(json.dumps(stored))
  source = sources.make("coco", data_dir=str(tmp_path), split="train")
  assert "2 points outside their boxes" in source.left_out
  dense = source[0]["dense_points"][0]
  assert len(dense.points) == 58 and dense.points[0, 0] == 0 and dense.uv[3, 0] == 1


def test_published_names_of_files_are_found(tmp_path):
  """The annotations of the minimal validation set, whose images are in val2014."""
  made_people.write_people(tmp_path, [[POSE]])
  (tmp_path / "annotations").mkdir()
  (tmp_path / "train.json").rename(tmp_path / "annotations" / "densepose_coco_2014_minival.json")
  (tmp_path / "train_images").rename(tmp_path / "val2014")
  source = sources.make("coco", data_dir=str(tmp_path), split="densepose_coco_2014_minival")
  assert len(source) == 1 and source.name(0).endswith("val2014/0.png")


def flipped(made):
  record = {name: jnp.asarray(leaf) for name, leaf in made.items()}
  window = Window(*(jnp.float32(side) for side in (0, 0, SIDE, SIDE)), jnp.array(True))
  return jax.device_get(record_moves.move(record, window, SIDE, record_moves.MEAN, 1.0))


def test_mirroring_exchanges_the_sides_of_the_body(tmp_path):
  """The mirrored annotation is that of the mirrored figure."""
  source = open_people(tmp_path, [[POSE]])
  symmetry = made_people.write_symmetry(tmp_path / "symmetry.mat")
  transform = host.image_densepose(host.Frame(SIDE), max_boxes=2, symmetry=symmetry)
  made = transform(None, source[0])
  assert set(made) == set(transform.elements)
  found = flipped(made)
  assert "boxes_points_mirrored" not in found
  other = POSE.mirrored(SIDE)
  drawn = made_people.draw([other], SIDE, SIDE)
  one_side = np.isin(found["boxes_points_part"][0], [3, 16, 20])  # the right arm
  assert one_side.any() and found["boxes_points"][0][one_side].max(0)[0] < 0.5
  assert check_surface(found, 0, other, tolerance=0.02).sum() == 60
  assert not np.array_equal(drawn, made_people.draw([POSE], SIDE, SIDE)[:, ::-1])  # sides have colours


def test_a_window_moves_and_drops_points(tmp_path):
  made = host.image_densepose(host.Frame(SIDE), max_boxes=2)(None, open_people(tmp_path, [[POSE]])[0])
  record = {name: jnp.asarray(leaf) for name, leaf in made.items()}
  augment = jax.jit(records.scale_jitter(size=48, scale=(0.8, 1.6), flip=0.0))
  dropped = 0
  for seed in range(6):
    found = jax.device_get(augment(jax.random.key(seed), record))
    if not found["boxes_valid"][0]:
      continue
    dropped += int((~found["boxes_points_valid"][0]).sum() > 136)
    box, inside = found["boxes"][0], found["boxes_points_valid"][0]
    places = box[:2] + found["boxes_points"][0][inside] * (box[2:] - box[:2])
    moved, _ = record_moves.move_points(*place_points(made, found, record, augment, seed))
    np.testing.assert_allclose(places, moved[inside], atol=1e-2)
  assert dropped


def place_points(made, found, record, augment, seed):
  """The arguments of `move_points` that give the points of the first box under the same draw."""
  box = made["boxes"][0]
  points = jnp.asarray(box[:2] + made["boxes_points"][0] * (box[2:] - box[:2]))
  corners = jnp.array([[0.0, 0.0], [1.0, 1.0]])
  both = augment(jax.random.key(seed), {**record, "points": corners})["points"]
  scale = both[1, 0] - both[0, 0]
  window = Window(-both[0, 1] / scale, -both[0, 0] / scale, 48 / scale, 48 / scale, jnp.array(False))
  return points, window, 48


def test_flipping_needs_the_table(tmp_path):
  made = host.image_densepose(host.Frame(SIDE), max_boxes=2)(None, open_people(tmp_path, [[POSE]])[0])
  record = {name: jnp.asarray(leaf) for name, leaf in made.items()}
  for augment in (
    records.record_crop(size=32),
    records.scale_jitter(size=32),
    records.resize_shorter(size=32),
  ):
    with pytest.raises(ValueError, match="config.augment.flip is 0.5.*set config.host.symmetry"):
      augment(jax.random.key(0), record)
  records.record_crop(size=32, flip=0.0)(jax.random.key(0), record)
  lacking = host.image_densepose(host.Frame(SIDE), symmetry="no.mat")
  with pytest.raises(ValueError, match="config.host.symmetry is 'no.mat', which cannot be read as a MATLAB"):
    host.check_source("image_densepose", lacking, sources.make("coco", data_dir=str(tmp_path), split="train"))


def test_the_table_is_read_by_row_of_v_and_column_of_u(tmp_path):
  tables = np.zeros((24, 256, 256, 2), np.float32)
  tables[4, 51, 102] = 0.25, 0.75
  found = body_parts.mirror_points(
    np.array([5, 5, 0]), np.array([[0.402, 0.201], [0.9, 0.9], [0, 0]]), tables
  )
  np.testing.assert_allclose(found, [[0.25, 0.75], [0, 0], [0, 0]])
  read = body_parts.read_symmetry(made_people.write_symmetry(tmp_path / "table.mat"))
  assert (
    read.shape == tables.shape and read[3, 255, 0].tolist() == [0, 0] and read[3, 0, 255].tolist() == [1, 1]
  )
  part = body_parts.MIRRORED_PART
  assert sorted(part) == list(range(25)) and (part[part] == np.arange(25)).all()
  segment = body_parts.MIRRORED_SEGMENT
  np.testing.assert_array_equal(SEGMENT_OF_PART[part], segment[SEGMENT_OF_PART])  # sides agree


def test_a_real_annotation_is_read(shared_data):
  """125 points that people set on a photograph, written as the file of COCO has them."""
  folder = shared_data / "densepose_demo"
  stored = np.load(folder / "person_points.npz")
  with Image.open(folder / "person.jpg") as opened:
    width, height = opened.size
  annotation = {
    "bbox": [0, 0, width, height],
    "dp_x": (stored["x"] / width * 256).tolist(),
    "dp_y": (stored["y"] / height * 256).tolist(),
    "dp_I": stored["I"].tolist(),
    "dp_U": stored["U"].tolist(),
    "dp_V": stored["V"].tolist(),
    "dp_masks": [[]] * 14,
  }
  dense = dense_points.from_coco(annotation)
  assert dense is not None and len(dense.points) == 125
  np.testing.assert_allclose(
    dense.points * [width, height], np.stack([stored["x"], stored["y"]], 1), rtol=1e-4
  )
  assert not dense_points.segment_labels(dense).any()
