"""Frames by index of many formats: the right ones, whatever the order, with their times, upright, in RGB."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data.decode import DecodeError
from ssl_jax.data.fit import Fit
from ssl_jax.video.clips import open_clip
from ssl_jax.video.file import VideoFile
from ssl_jax.video.picture import Turn
from tests.made_clips import number, pattern, write_clip

av = pytest.importorskip("av", reason="av is not installed: extra `video`")

COUNT = 60
VARIABLE = np.cumsum([20 + 7 * (i % 4) + 150 * (i == 31) for i in range(COUNT)])  # milliseconds
OPEN_GOP = {"x264-params": "open-gop=1:keyint=15:min-keyint=15:bframes=3:scenecut=0"}
CLOSED = {"g": "15", "bf": "2"}
FORMATS = {  # name: (file name, arguments of write_clip, whether a seek is possible)
  "mp4": ("a.mp4", dict(codec="libx264", options=CLOSED), True),
  "open gop": ("a.mp4", dict(codec="libx264", options=OPEN_GOP), True),
  "mpeg4": ("a.mp4", dict(codec="mpeg4", options=CLOSED), True),
  "mkv": ("a.mkv", dict(codec="libx264", options=CLOSED, times=VARIABLE), True),
  "ffv1": ("a.mkv", dict(codec="ffv1", pixels="yuv444p", options={"g": "1"}), True),
  "avi": ("a.avi", dict(codec="mpeg4", options={"g": "15"}), True),
  "avi, B-frames": ("a.avi", dict(codec="libx264", options=CLOSED), False),
  "mjpeg": ("a.mov", dict(codec="mjpeg", pixels="yuvj420p"), True),
  "webm": ("a.webm", dict(codec="libvpx-vp9", options={"g": "15"}), True),
  "vp8": (
    "a.webm",
    dict(codec="libvpx", options={"g": "15", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    True,
  ),
  "mpeg2": ("a.mpg", dict(codec="mpeg2video", options=CLOSED), False),  # several frames in one pack
  "ts": ("a.ts", dict(codec="libx264", options=CLOSED), True),
  "no timestamps": ("a.h264", dict(codec="libx264", options=CLOSED), False),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A function that writes one of FORMATS once."""
  made: dict[str, pathlib.Path] = {}

  def write(kind: str) -> pathlib.Path:
    if kind not in made:
      name, options, _ = FORMATS[kind]
      try:
        av.codec.Codec(options["codec"], "w")
      except ValueError:
        pytest.skip(f"PyAV was built without the encoder {options['codec']}")
      made[kind] = write_clip(tmp_path_factory.mktemp("clip") / name, COUNT, **options)
    return made[kind]

  return write


@pytest.mark.parametrize("kind", FORMATS)
def test_frames_in_any_order_are_those_of_their_index(written, kind):
  path = written(kind)
  order = np.random.default_rng(0).integers(0, COUNT, 24)
  with av.open(str(path)) as container:
    bare = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
  with open_clip(path) as clip:
    assert len(clip) == len(bare) == COUNT
    inorder = np.stack(list(clip))
    assert [number(frame) for frame in inorder] == list(range(COUNT))
    assert (inorder == bare).all()
    one_by_one = np.stack([clip.frames([i])[0] for i in order])
    assert (one_by_one == inorder[order]).all()
    assert (clip.frames(order) == inorder[order]).all()


@pytest.mark.parametrize("kind", [kind for kind, (_, _, seeks) in FORMATS.items() if seeks])
def test_a_late_frame_is_reached_by_a_seek(written, kind, monkeypatch):
  path = written(kind)
  decoded = []
  decode = VideoFile._from_packets
  monkeypatch.setattr(
    VideoFile, "_from_packets", lambda *a: (decoded.append(found[0]) or found for found in decode(*a))
  )
  with open_clip(path) as clip:
    assert number(clip.frames([50])[0]) == 50
    assert min(decoded) >= 15, decoded  # the keyframes are frames 0, 15, 30 and 45, or more
    clip.frames([0])
    decoded.clear()
    clip.frames([1, 2, 50])
    assert decoded[:2] == [1, 2] and min(decoded[2:]) >= 15, "frames in between are passed over"
    decoded.clear()
    clip.frames(range(20, 24))
    clip.frames(range(24, 28))
    assert decoded == sorted(set(decoded)), "frames that follow are decoded once"


@pytest.mark.parametrize("kind", FORMATS)
def test_times(written, kind):
  with open_clip(written(kind)) as clip:
    wanted = (VARIABLE - VARIABLE[0]) / 1000 if kind == "mkv" else np.arange(COUNT) / 25
    np.testing.assert_allclose(clip.times, wanted, atol=1e-3)
    assert clip.times[0] == 0
    assert clip.duration == pytest.approx(clip.times[-1] + 1 / 25, abs=0.03)


@pytest.mark.parametrize("pixels, codec", [("gray", "ffv1"), ("yuv420p10le", "ffv1"), ("gray16le", "ffv1")])
def test_grey_and_deep_colours_become_rgb(tmp_path, pixels, codec):
  with open_clip(write_clip(tmp_path / "a.mkv", 5, codec=codec, pixels=pixels)) as clip:
    frame = clip.frames([3])[0]
    assert frame.shape == (64, 96, 3) and frame.dtype == np.uint8 and number(frame) == 3
    if pixels.startswith("gray"):
      assert np.ptp(frame.astype(int), axis=-1).max() <= 1


@pytest.mark.parametrize("size", [(97, 65), (33, 21), (16, 2)])
def test_odd_sizes(tmp_path, size):
  path = write_clip(tmp_path / "a.mkv", 4, codec="ffv1", pixels="yuv444p", size=size)
  with open_clip(path) as clip:
    assert clip.frames([1, 2]).shape == (2, size[1], size[0], 3)
    assert np.abs(clip.frames([2])[0].astype(int) - pattern(2, size)).max() < 12


ONE = 65536
MATRICES = {  # EXIF orientation of the same turn: display matrix
  1: (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30),
  2: (-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30),
  3: (-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
  4: (ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30),
  5: (0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
  6: (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
  7: (0, -ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30),
  8: (0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30),
}


def exif_turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """The same turn by Pillow: an independent reference."""
  image = Image.fromarray(pixels)
  exif = image.getexif()
  exif[0x0112] = orientation
  data = io.BytesIO()
  image.save(data, "PNG", exif=exif)
  from PIL import ImageOps

  return np.asarray(ImageOps.exif_transpose(Image.open(data)))


@pytest.mark.parametrize("orientation", MATRICES)
def test_turns_equal_those_of_photographs(orientation):
  turn, frame = Turn(np.array(MATRICES[orientation], np.int32)), pattern(37)
  assert (turn(frame) == exif_turned(frame, orientation)).all()
  assert turn.size(96, 64) == turn(frame).shape[1::-1]


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_matrix"), reason="this PyAV writes no rotation")
@pytest.mark.parametrize("orientation", (2, 3, 6, 8))
def test_rotation_that_the_file_demands(tmp_path, orientation):
  options = dict(codec="ffv1", pixels="yuv444p")
  write_clip(tmp_path / "stored.mkv", 3, **options)
  write_clip(tmp_path / "turned.mkv", 3, matrix=MATRICES[orientation], **options)
  fit = Fit(40, "crop")
  with open_clip(tmp_path / "stored.mkv") as stored, open_clip(tmp_path / "turned.mkv") as turned:
    assert (turned.frames([2])[0] == exif_turned(stored.frames([2])[0], orientation)).all()
    found, wanted = turned.fitted([1], fit)[0][0], exif_turned(stored.fitted([1], fit)[0][0], orientation)
    assert np.abs(found.astype(int) - wanted).mean() < 1


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(96, 64), (300, 200), (400, 16)])
def test_fitted_frames_equal_those_of_pillow(tmp_path, fit, size):
  path = write_clip(tmp_path / "a.mkv", 3, codec="ffv1", pixels="yuv444p", size=size)
  fitting = Fit((48, 60), fit)
  with open_clip(path) as clip:
    full = clip.frames([1])[0]
    found, covered = clip.fitted([1, 1], fitting)
  place = fitting.place(*size)
  assert tuple(covered) == tuple(place.filled())
  wanted = fitting.on_canvas(
    np.asarray(place.fit(Image.fromarray(full), Image.Resampling.BILINEAR)), place, 0
  )
  assert found.shape == (2, 48, 60, 3) and (found[0] == found[1]).all()
  assert np.abs(found[0].astype(int) - wanted).mean() < 2, np.abs(found[0].astype(int) - wanted).mean()
  assert not found[0, covered[0] :].any() and not found[0, :, covered[1] :].any()


def test_frame_folder(tmp_path):
  folder = tmp_path / "walk"
  folder.mkdir()
  for i in (0, 1, 2, 9, 10, 11):  # by number, not by name
    Image.fromarray(pattern(i)).save(folder / f"frame_{i}.png")
  (folder / ".hidden_3.png").write_bytes(b"")
  with open_clip(folder) as clip:
    assert [number(frame) for frame in clip] == [0, 1, 2, 9, 10, 11]
    assert [number(frame) for frame in clip.frames([5, 0, 5])] == [11, 0, 11]
    np.testing.assert_allclose(clip.times, np.arange(6) / 25)
    assert not clip.has_sound and clip.duration == 6 / 25
    assert clip.fitted([0], Fit(32, "crop"))[0].shape == (1, 32, 32, 3)
  (folder / "fps.txt").write_text("10\n")
  assert open_clip(folder).times[-1] == 0.5
  (folder / "times.txt").write_text("1.0 1.5 1.7 2.5 3.0 4.0")
  np.testing.assert_allclose(open_clip(folder).times, [0, 0.5, 0.7, 1.5, 2, 3])
  (folder / "times.txt").write_text("1 2 3")
  with pytest.raises(DecodeError, match=r"times.txt must hold 6 ascending times in seconds, and it holds 3"):
    open_clip(folder)
  (folder / "times.txt").unlink()
  (folder / "frame_2.png").write_bytes(b"nothing")
  with pytest.raises(DecodeError, match=r"frame 2, frame_2.png: not a PNG, JPEG or WebP file"):
    open_clip(folder).frames([1, 2])
  Image.fromarray(pattern(2, (50, 40))).save(folder / "frame_2.png")
  with pytest.raises(DecodeError, match="frame 2 has 50x40 pixels, earlier ones have 96x64"):
    open_clip(folder).frames([1, 2])
  with pytest.raises(IndexError, match="within the clip of 6 frames"):
    open_clip(folder).frames([6])


def test_edit_list_hides_frames(tmp_path):
  """Stream copy from a moment between keyframes: the file holds frames that its edit list hides."""
  source = write_clip(tmp_path / "a.mp4", 40, codec="libx264", options={"g": "20", "bf": "0"})
  data = bytearray(source.read_bytes())
  place = data.index(b"elst")
  unit = 12800  # of the track; frames are 512 apart
  assert int.from_bytes(data[place + 8 : place + 12], "big") == 1
  data[place + 16 : place + 20] = (25 * unit // 25).to_bytes(4, "big")  # from frame 25 on
  source.write_bytes(data)
  with av.open(str(source)) as container:
    bare = [number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
  assert bare[0] == 25
  with open_clip(source) as clip:
    assert [number(frame) for frame in clip] == bare
    assert number(clip.frames([3])[0]) == 28 and clip.times[3] == pytest.approx(3 / 25)


def test_frames_before_the_first_keyframe_are_left_out(tmp_path):
  """A recording that begins within a group of pictures: nothing can be decoded before the next keyframe."""
  source = write_clip(tmp_path / "a.mkv", 40, codec="mpeg4", options={"g": "15"})
  with av.open(str(source)) as old, av.open(str(tmp_path / "b.mkv"), "w") as new:
    stream = new.add_stream_from_template(old.streams.video[0])
    for i, packet in enumerate(old.demux(video=0)):
      if packet.size and i:
        packet.stream = stream
        new.mux(packet)
  with open_clip(tmp_path / "b.mkv") as clip:
    found = [number(frame) for frame in clip]
    assert found == list(range(found[0], 40)) and found[0] > 1 and len(clip) == len(found)
    assert clip.times[1] == pytest.approx(0.04)
    assert number(clip.frames([3])[0]) == found[3]


def test_real_clips(shared_data):
  """Frames of a clip with one keyframe, whose sound is in the file, and one whose sound lies beside it."""
  for name in ("davis/camel.mp4", "video/pancake_audio.mp4", "clips/canary.mp4"):
    with open_clip(shared_data / name) as clip, av.open(str(shared_data / name)) as container:
      bare = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
      places = [len(bare) - 1, 3, 40]
      assert len(clip) == len(bare)
      assert (clip.frames(places) == np.stack([bare[i] for i in places])).all()
      assert clip.has_sound == (not name.startswith("davis"))
