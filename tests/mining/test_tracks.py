"""Mined tracks: what moves is found and followed, what is rejected and why, and what training reads."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")

from ssl_jax.data import host, sources  # noqa: E402
from ssl_jax.data.decode import decode  # noqa: E402
from ssl_jax.data.elements import host_batch  # noqa: E402
from ssl_jax.mining import miners, runner  # noqa: E402
from ssl_jax.mining.miners import tracks  # noqa: E402
from ssl_jax.video.clips import open_clip  # noqa: E402

HEIGHT, WIDTH, SIDE = 120, 240, 56
FRAMES = 12
OPTIONS = {"frames": FRAMES, "size": 32, "count": 3, "least": 0.05}


def textured(seed: int, height: int, width: int) -> np.ndarray:
  noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
  return cv2.GaussianBlur(noise, (0, 0), 2)


# The background has less contrast than the square; the box holds a good part of it.
BACKGROUND, SPRITE = 64 + textured(0, HEIGHT + 40, WIDTH + 80) // 2, textured(1, SIDE, SIDE)


def place(number: int) -> np.ndarray:
  """f32[4]: the box of the square."""
  left, top = 12 + 6 * number, 28 + number
  return np.array([left, top, left + SIDE, top + SIDE], np.float32)


def moving(number: int, pan: int = 0) -> np.ndarray:
  """A square that moves over a background, which the camera moves by `pan` pixels a frame."""
  frame = BACKGROUND[:HEIGHT, pan * number : pan * number + WIDTH].copy()
  left, top, right, bottom = place(number).astype(int)
  frame[top:bottom, left:right] = SPRITE
  return frame


def panning(number: int) -> np.ndarray:
  return BACKGROUND[number : number + HEIGHT, 2 * number : 2 * number + WIDTH]


def write(path, frames) -> None:
  path.mkdir(parents=True)
  for number, frame in enumerate(frames):
    Image.fromarray(frame).save(path / f"{number:03}.png")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  root = tmp_path_factory.mktemp("clips")
  count = FRAMES + 7
  write(root / "moving", map(moving, range(count)))
  write(root / "moving_over_pan", [moving(number, pan=2) for number in range(count)])
  write(root / "still", [BACKGROUND[:HEIGHT, :WIDTH]] * count)
  write(root / "pan", map(panning, range(count)))
  write(root / "even", [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * count)
  write(root / "brief", map(moving, range(FRAMES)))
  other = 255 - BACKGROUND[:HEIGHT, :WIDTH] // 2
  write(root / "cut", [*map(moving, range(9)), *[other] * (count - 9)])
  return root


def mine(path, **options):
  with open_clip(path) as clip:
    return miners.make("tracks", **{**OPTIONS, **options}).mine(clip, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["moving", "moving_over_pan"])
def test_the_box_holds_the_square_and_follows_it(clips, name):
  found = mine(clips / name)
  assert [record["numbers"].tolist() for record in found.records] == [[0, 12], [3, 15], [6, 18]]
  assert not found.rejected
  for record in found.records:
    first, last = record["boxes"] * ([WIDTH, HEIGHT] * 2)
    began, ended = (place(number) for number in record["numbers"])
    inside = np.minimum(first[2:], began[2:]) - np.maximum(first[:2], began[:2])
    assert inside.prod() > 0.9 * SIDE**2
    wanted = first + ended - began
    sides = (np.minimum(last[2:], wanted[2:]) - np.maximum(last[:2], wanted[:2])).clip(0)
    area = np.prod(first[2:] - first[:2])
    assert sides.prod() / (2 * area - sides.prod()) > 0.7
    patches = [decode(patch).astype(int) for patch in record["frames"]]
    assert patches[0].shape == patches[1].shape == (32, 32, 3)
    np.testing.assert_allclose(record["times"], record["numbers"] / 25, rtol=1e-6)


@pytest.mark.parametrize(
  "name, reason",
  [
    ("still", {"frame with too little motion": 3}),
    ("pan", {"frame with too little motion": 3}),
    ("even", {"frame with too few points": 3}),
    ("brief", {"clip with too few frames": 1}),
    ("cut", {"track that a cut ends": 3}),
  ],
)
def test_what_has_no_track_is_rejected_for_a_reason(clips, name, reason):
  found = mine(clips / name)
  assert not found.records and found.rejected == reason


def test_grey_levels_follow_too(clips):
  found = mine(clips / "moving", features="pixels", psr=2.0)
  assert len(found.records) == 3
  assert found.records[0]["frames"][0] == mine(clips / "moving").records[0]["frames"][0]
  assert found.records[0]["frames"][1] != mine(clips / "moving").records[0]["frames"][1]


def test_limits_reject_tracks(clips):
  assert mine(clips / "moving", psr=1000.0).rejected == {"track that was lost": 3}
  leaving = mine(clips / "moving", frames=17, count=1)
  assert len(leaving.records) == 1 and leaving.records[0]["numbers"].tolist() == [0, 17]
  few = mine(clips / "moving", most=0.06)
  assert few.rejected == {"frame where everything moves": 3}


def test_a_box_that_leaves_the_frame_ends_its_track(tmp_path):
  def leaving(number):
    frame = BACKGROUND[:HEIGHT, :WIDTH].copy()
    left = WIDTH - SIDE - 6 + 6 * number
    frame[30 : 30 + SIDE, left : left + SIDE] = SPRITE[:, : max(WIDTH - left, 0)]
    return frame

  write(tmp_path / "leaving", map(leaving, range(14)))
  found = mine(tmp_path / "leaving", count=1)
  assert not found.records and found.rejected == {"track that leaves the frame": 1}


def test_the_window_with_most_points_is_found():
  side = round(tracks.WINDOW * HEIGHT)
  points = np.float32([[5, 5], [100, 50], [110, 60], [120, 70], [190, 110]])
  box = tracks.best_window(points, (HEIGHT, WIDTH))
  assert box[2] - box[0] == box[3] - box[1] == side
  held = ((points >= box[:2]) & (points < box[2:])).all(1)
  assert held.tolist() == [False, True, True, True, False]
  assert (box[:2] % tracks.STRIDE == 0).all()
  assert tracks.best_window(points[:0], (HEIGHT, WIDTH))[:2].tolist() == [0, 0]  # the first of equals


def test_large_frames_are_reduced(tmp_path):
  large = [np.asarray(Image.fromarray(moving(n)).resize((1000, 500))) for n in range(14)]
  write(tmp_path / "large", large)
  found = mine(tmp_path / "large", count=1)
  (record,) = found.records
  sides = (record["boxes"][:, 2:] - record["boxes"][:, :2]) * [600, 300]  # of the frame that was examined
  np.testing.assert_allclose(sides, round(tracks.WINDOW * 300), rtol=1e-3)


def test_the_same_clip_gives_the_same_tracks_and_opencv_keeps_its_threads(clips):
  before = cv2.getNumThreads()
  first, again = (mine(clips / "moving") for _ in range(2))
  assert cv2.getNumThreads() == before
  for one, other in zip(first.records, again.records, strict=True):
    assert one["frames"] == other["frames"]
    np.testing.assert_array_equal(one["boxes"], other["boxes"])


def test_options_out_of_range_and_a_missing_package_are_named(clips, monkeypatch):
  with pytest.raises(ValueError, match="tracks.count is 0; use a positive number"):
    mine(clips / "moving", count=0)
  with pytest.raises(
    ValueError, match="tracks.least is 0.8 and tracks.most 0.75; use 0 <= least <= most <= 1"
  ):
    mine(clips / "moving", least=0.8)
  with pytest.raises(ValueError, match="tracks.moving is 0.0; use a positive number of pixels"):
    mine(clips / "moving", moving=0.0)
  found = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else found(name))
  with pytest.raises(ImportError, match=r"the miner .tracks. needs OpenCV.*pip install 'ssl_jax\[video\]'"):
    mine(clips / "moving")


def test_training_reads_what_was_mined(clips, tmp_path):
  mining = runner.Mining("tracks", OPTIONS, str(clips), split="train[:100%]", test_split="")
  written = runner.run(mining, tmp_path, processes=1)
  source = sources.make("tracks", data_dir=str(tmp_path))
  assert set(source.fields) == {"frames", "boxes", "numbers", "times", "label", "clip_name"}
  assert {source[i]["clip_name"] for i in range(len(source))} >= {"moving", "moving_over_pan"}
  transform = host.make("stored_frames", host.Frame(24), count=2)
  batch = host_batch(transform, [source[i] for i in range(len(source))])
  assert batch["clip"].shape == (len(source), 2, 24, 24, 3)
  assert np.asarray(Image.open(written.parent / "sheet.png")).std() > 20
