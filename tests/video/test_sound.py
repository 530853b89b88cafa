"""Windows of a clip's sound: the right samples at the right moment, at any rate, from any container."""

import numpy as np
import pytest
from scipy.signal import resample_poly

from ssl_jax.data.decode import DecodeError
from ssl_jax.video.clips import open_clip
from tests.made_clips import pattern, write_clip, write_wav

pytest.importorskip("av", reason="av is not installed: extra `video`")
RATE = 16000


def tones(seconds: float, rate: int = RATE) -> np.ndarray:
  """Another pitch in every tenth of a second, so that each moment sounds different. f32[samples]."""
  time = np.arange(round(seconds * rate)) / rate
  return (0.5 * np.sin(2 * np.pi * (200 + 150 * np.floor(time * 10)) * time)).astype(np.float32)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mov"])
def test_pcm_is_exact(tmp_path, name):
  sound = tones(2.0)
  path = write_clip(
    tmp_path / name, 50, codec="mjpeg", pixels="yuvj420p", sound=sound, sound_codec="pcm_s16le"
  )
  with open_clip(path) as clip:
    assert clip.has_sound and clip.sound_span == (0, 2.0, RATE)
    for start in (0, 0.3, 1.25, 1.5):
      first = round(start * RATE)
      np.testing.assert_allclose(clip.sound(start, 0.5, RATE), sound[first : first + 8000], atol=1e-4)


@pytest.mark.parametrize("name, codec", [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.webm", "libopus")])
def test_compressed_sound_is_heard_at_its_moment(tmp_path, name, codec):
  rate = 48000 if codec == "libopus" else RATE
  sound = tones(3.0, rate)
  video = dict(codec="libvpx-vp9") if name.endswith("webm") else dict(codec="mpeg4")
  path = write_clip(tmp_path / name, 75, sound=sound, sound_codec=codec, sound_rate=rate, **video)
  with open_clip(path) as clip:
    assert clip.sound_span.first == pytest.approx(0, abs=0.025)
    assert clip.sound_span.last == pytest.approx(3.0, abs=0.06)
    for start in (0.2, 1.0, 2.3):
      found = clip.sound(start, 0.5, rate)
      shifts = range(-round(0.0015 * rate), round(0.0015 * rate) + 1)  # webm stores milliseconds
      first = round(start * rate)
      fits = [np.dot(found, sound[first + shift : first + shift + len(found)]) for shift in shifts]
      power = np.dot(found, found)
      assert max(fits) > 0.95 * power, (start, name)


def test_a_window_of_compressed_sound_equals_that_part_of_the_whole(tmp_path):
  """Decoding begins before the window, because a block of AAC overlaps with the one before it."""
  path = write_clip(tmp_path / "a.mp4", 75, sound=tones(3.0))
  with open_clip(path) as clip:
    whole = clip.sound(0, 2.9, RATE)
    for start in np.arange(0.5, 1.5, 0.063):
      first = round(start * RATE)
      np.testing.assert_allclose(clip.sound(start, 0.1, RATE), whole[first : first + 1600], atol=1e-5)


@pytest.mark.parametrize("wanted", [8000, 11025, 20000, 44100])
def test_windows_are_parts_of_the_resampled_sound(tmp_path, wanted):
  sound = tones(2.0)
  path = write_clip(tmp_path / "a.mkv", 50, sound=sound, sound_codec="pcm_s16le")
  common = np.gcd(wanted, RATE)
  whole = resample_poly(sound, wanted // common, RATE // common)
  with open_clip(path) as clip:
    for start in (0.0, 0.37, 1.001):
      found, first = clip.sound(start, 0.6, wanted), round(start * wanted)
      assert found.shape == (round(0.6 * wanted),) and found.dtype == np.float32
      np.testing.assert_allclose(found, whole[first : first + len(found)], atol=3e-4)


def test_channels_are_averaged(tmp_path):
  left = tones(1.0)
  path = write_clip(tmp_path / "a.mkv", 25, sound=np.stack([left, -0.5 * left]), sound_codec="pcm_s16le")
  with open_clip(path) as clip:
    np.testing.assert_allclose(clip.sound(0.1, 0.5, RATE), 0.25 * left[1600:9600], atol=1e-4)


def test_sound_shorter_than_the_pictures(tmp_path):
  sound = tones(1.0)
  path = write_clip(tmp_path / "a.mkv", 50, sound=sound, sound_codec="pcm_s16le")
  with open_clip(path) as clip:
    assert clip.duration == pytest.approx(2.0)
    with pytest.raises(
      DecodeError, match=r"its sound, from 0.00 s to 1.00 s, does not cover 0.80 s to 1.30 s"
    ):
      clip.sound(0.8, 0.5, RATE)
    padded = clip.sound(0.8, 0.5, RATE, pad=True)
    np.testing.assert_allclose(padded[:3200], sound[12800:], atol=1e-4)
    assert not padded[3200:].any() and padded.shape == (8000,)
    before = clip.sound(-0.25, 0.5, RATE, pad=True)
    assert not before[:4000].any()
    np.testing.assert_allclose(before[4000:], sound[:4000], atol=1e-4)
    with pytest.raises(DecodeError, match="does not cover -0.25 s"):
      clip.sound(-0.25, 0.5, RATE)
    assert not clip.sound(5.0, 0.1, RATE, pad=True).any()


def test_silent_clip_and_sound_beside_it(tmp_path):
  path = write_clip(tmp_path / "a.mp4", 25)
  with open_clip(path) as clip:
    assert not clip.has_sound
    with pytest.raises(DecodeError, match="it has no sound"):
      clip.sound(0, 0.1, RATE)
  sound = tones(1.0)
  write_wav(tmp_path / "a.wav", sound)
  with open_clip(path) as clip:
    assert clip.has_sound
    np.testing.assert_allclose(clip.sound(0.2, 0.5, RATE), sound[3200:11200], atol=1e-4)
  folder = tmp_path / "a"
  folder.mkdir()
  from PIL import Image

  Image.fromarray(pattern(0)).save(folder / "0.png")
  with open_clip(folder) as clip:
    np.testing.assert_allclose(clip.sound(0.2, 0.5, RATE), sound[3200:11200], atol=1e-4)


def test_late_pictures_share_the_clock_of_the_sound(tmp_path):
  """The first frame is shown 0.4 s after the first sample: that is moment 0 of the clip."""
  sound = tones(2.0)
  path = write_clip(
    tmp_path / "a.mkv", 40, times=400 + 40 * np.arange(40), sound=sound, sound_codec="pcm_s16le"
  )
  with open_clip(path) as clip:
    assert clip.times[0] == 0 and clip.sound_span[:2] == pytest.approx((-0.4, 1.6), abs=2e-3)
    np.testing.assert_allclose(clip.sound(0.2, 0.5, RATE), sound[9600:17600], atol=1e-4)


def test_real_sound(shared_data):
  """The sound of a clip, against the copy of it that lies beside it."""
  import wave

  with wave.open(str(shared_data / "video/pancake_audio.wav")) as file:
    beside = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0
  with open_clip(shared_data / "video/pancake_audio.mp4") as clip:
    found = clip.sound(2.0, 3.75, RATE)
  best = max(np.corrcoef(found, beside[first : first + len(found)])[0, 1] for first in range(31000, 33001, 1))
  assert best > 0.9
