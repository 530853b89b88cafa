"""The picture of DensePose: what lies where, on real annotations too."""

import numpy as np
from PIL import Image

from ssl_jax.data import decode
from ssl_jax.data.dense_points import DensePoints
from ssl_jax.tasks.densepose_scores import DenseDetected
from ssl_jax.view import densepose
from ssl_jax.view.densepose import ShownPeople
from tests import made_people
from tests.made_people import Pose

POSE = Pose((30.0, 34.0), 52.0, arms=(0.3, 0.9))


def detection(pose, size=112):
  box = made_people.box_of(pose)
  part, uv = made_people.surface(pose, made_people.grid(box, size, size))
  return DenseDetected(
    box[None],
    np.ones(1, np.float32),
    part.reshape(1, size, size).astype(np.uint8),
    uv.reshape(1, size, size, 2),
  )


def test_a_body_is_pasted_where_it_is():
  found = detection(POSE)
  parts, uv = densepose.paste_body(found.parts[0], found.uv[0], found.boxes[0], (64, 60))
  part, place = made_people.surface(POSE, made_people.grid(np.array([0, 0, 60, 64]), 64, 60))
  same = parts == part.reshape(64, 60)
  assert parts.shape == (64, 60) and same.mean() > 0.97
  np.testing.assert_allclose(uv[same], place.reshape(64, 60, 2)[same], atol=0.08)
  image = made_people.draw([POSE], 64, 60)
  over = densepose.overlay_bodies(image, found)
  np.testing.assert_array_equal(over[parts == 0], image[parts == 0])
  assert (over[parts > 0] != image[parts > 0]).any(1).mean() > 0.95


def test_lines_lie_at_quarters():
  u = np.tile(np.linspace(0, 1, 40, endpoint=False), (20, 1))
  factor = densepose._line_factor(np.full((20, 40), 3), np.stack([u, np.full_like(u, 0.1)], -1))
  assert np.flatnonzero(factor[5] == densepose.LIGHT).tolist() == [10, 20, 30]
  assert not (factor == densepose.DARK).any()


def test_the_picture_is_written(tmp_path):
  image = made_people.draw([POSE], 64, 60)
  shown = ShownPeople(image, [made_people.annotate(POSE, 60)], detection(POSE))
  densepose.plot_densepose(tmp_path / "people.png", [shown, shown._replace(detected=None)], title="A figure")
  with Image.open(tmp_path / "people.png") as opened:
    picture = np.asarray(opened)
  assert picture.shape[0] > 400 and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 200


def test_real_people_are_drawn(shared_data, tmp_path):
  folder = shared_data / "densepose_demo"
  stored = np.load(folder / "person_points.npz")
  person, group, iuv = (
    decode.decode((folder / name).read_bytes()) for name in ("person.jpg", "group.jpg", "group_iuv.png")
  )
  height, width = person.shape[:2]
  points = np.stack([stored["x"] / width, stored["y"] / height], 1).astype(np.float32)
  uv = np.stack([stored["U"], stored["V"]], 1)
  truth = DensePoints(
    np.array([0, 0, width, height], np.float32), points, stored["I"].astype(np.int32), uv, (None,) * 14
  )
  tall, wide = group.shape[:2]
  found = DenseDetected(
    np.array([[0, 0, wide, tall]], np.float32),
    np.ones(1, np.float32),
    np.stack([iuv[..., 0]]),
    np.stack([iuv[..., 1:] / np.float32(255)]),
  )
  with np.errstate(all="raise"):
    shown = [ShownPeople(person, [truth]), ShownPeople(group, [], found)]
    densepose.plot_densepose(tmp_path / "real.png", shown, title="DensePose")
  assert (tmp_path / "real.png").stat().st_size > 50_000
