"""Host transforms of clips: several frames in order, or one frame as an image; with sound if wanted."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import Elements, Record, ShapeDtype
from ssl_jax.data.fit import Fit, Frame, image_transform, make_fit
from ssl_jax.data.transforms import ImageTransform
from ssl_jax.video.clips import Clip, open_clip

STARTS = ("random", "centre", "first")
UNITS = ("frames", "seconds")
_ROUNDING = 2e-3  # seconds: files may store times in milliseconds


class SoundWindow(NamedTuple):
  """A window of sound around the middle one of the frames; of no length: no sound is read."""

  seconds: float
  rate: int  # samples a second

  @property
  def elements(self) -> Elements:
    """The samples, mono."""
    if not self.seconds:
      return {}
    return {"sound": ShapeDtype((round(self.seconds * self.rate),), np.float32)}

  def check(self) -> SoundWindow:
    """Returns itself. Raises ValueError for values out of range."""
    if self.seconds < 0:
      raise ValueError(
        f"config.host.sound_seconds is {self.seconds}; use 0 for none, or seconds such as 3.75"
      )
    if self.rate < 1 or self.seconds and self.seconds * self.rate < 1:
      raise ValueError(f"config.host.rate is {self.rate}; use a number of samples a second, such as 16000")
    return self

  def covered(self, clip: Clip, times: np.ndarray) -> np.ndarray:
    """bool[n]: whether there is sound all around each time f64[n]. Raises DecodeError without any sound."""
    if not self.seconds:
      return np.ones(len(times), bool)
    span, half = clip.sound_span, self.seconds / 2 + _ROUNDING
    return (times >= span.first + half) & (times <= span.last - half)

  def read(self, clip: Clip, time: float) -> dict[str, np.ndarray]:
    """The elements of the window around a time in seconds."""
    if not self.seconds:
      return {}
    return {"sound": clip.sound(time - self.seconds / 2, self.seconds, self.rate)}


class Course(NamedTuple):
  """Which frames of a clip are taken: `count` of them, `step` apart."""

  count: int
  step: float
  unit: str  # of `step`
  start: str

  def check(self) -> Course:
    """Returns itself. Raises ValueError for values out of range."""
    if self.count < 1:
      raise ValueError(f"config.host.count is {self.count}; use a number of frames, such as 8")
    for what, value, known in (("start", self.start, STARTS), ("unit", self.unit, UNITS)):
      if value not in known:
        raise ValueError(f"config.host.{what} is {value!r}{nearest(value, known)}")
    if self.step <= 0 or (self.unit == "frames" and self.step != round(self.step)):
      raise ValueError(
        f"config.host.step is {self.step} {self.unit}; use a positive number, a whole one for frames"
      )
    return self

  def choose(self, rng: np.random.Generator | None, clip: Clip, sound: SoundWindow) -> np.ndarray:
    """Returns the frames, i64[count].

    Raises: DecodeError if the clip is too short, or its sound nowhere covers the window around them.
    """
    times = clip.times
    firsts = np.arange(len(times))
    if self.unit == "frames":
      firsts = firsts[: max(len(times) - (self.count - 1) * round(self.step), 0)]
    else:
      firsts = firsts[times + (self.count - 1) * self.step <= times[-1] + _ROUNDING]
    if not len(firsts):
      raise DecodeError(
        f"the clip has {len(times)} frames in {clip.duration:.2f} s, too few for {self.count} frames at a "
        f"step of {self.step:g} {self.unit}"
      )
    middles = self._after(times, firsts, self.count // 2)
    firsts = firsts[sound.covered(clip, times[middles])]
    if not len(firsts):
      span = clip.sound_span
      raise DecodeError(
        f"its sound, from {span.first:.2f} s to {span.last:.2f} s of {clip.duration:.2f} s, covers no window "
        f"of {sound.seconds:g} s around the frames"
      )
    if rng is not None:
      first = firsts[rng.integers(len(firsts))]
    else:
      first = firsts[0 if self.start == "first" else len(firsts) // 2]
    return self._after(times, first, np.arange(self.count))

  def _after(self, times: np.ndarray, frames: np.ndarray, steps: int | np.ndarray) -> np.ndarray:
    """The frames that are shown a number of steps after others, i64[n]."""
    if self.unit == "frames":
      return frames + steps * round(self.step)
    return np.searchsorted(times, times[frames] + steps * self.step + _ROUNDING, side="right") - 1


class EvenCourse(NamedTuple):
  """Which frames of a clip are taken: `count` of them at equal distances, from the first to the last.

  Of a clip with fewer frames, some are taken several times.
  """

  count: int
  start: str = "first"

  def choose(self, rng: np.random.Generator | None, clip: Clip, sound: SoundWindow) -> np.ndarray:
    """Returns the frames, i64[count]."""
    return np.linspace(0, len(clip) - 1, self.count).round().astype(np.int64)


@dataclasses.dataclass(frozen=True)
class OneFrame:
  """See `frame`."""

  pixels: ImageTransform
  course: Course
  sound: SoundWindow

  @property
  def random(self) -> bool:
    """Whether the frame or the crops are random."""
    return self.course.start == "random" or self.pixels.random

  @property
  def elements(self) -> Elements:
    """The image, or its views, the label and the sound."""
    return {
      "image": ShapeDtype(tuple(self.pixels.shape), np.uint8),
      "label": ShapeDtype((), np.int32),
      **self.sound.elements,
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    with open_clip(record["clip"]) as clip:
      chosen = self.course.choose(rng if self.course.start == "random" else None, clip, self.sound)
      sound = self.sound.read(clip, float(clip.times[chosen[0]]))
      (pixels,) = clip.frames(chosen)
    return {"image": self.pixels(rng, pixels), "label": record["label"], **sound}


@dataclasses.dataclass(frozen=True)
class SeveralFrames:
  """See `frames`."""

  fitting: Fit
  course: Course | EvenCourse
  sound: SoundWindow

  @property
  def random(self) -> bool:
    """Whether the first frame is random."""
    return self.course.start == "random"

  @property
  def elements(self) -> Elements:
    """The frames, their times, the part of the canvas that they cover, the label and the sound."""
    count = self.course.count
    return {
      "clip": ShapeDtype((count, *self.fitting.canvas, 3), np.uint8),
      "image_size": ShapeDtype((2,), np.int32),
      "frame_times": ShapeDtype((count,), np.float32),
      "label": ShapeDtype((), np.int32),
      **self.sound.elements,
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    with open_clip(record["clip"]) as clip:
      chosen = self.course.choose(rng, clip, self.sound)
      times = clip.times[chosen]
      sound = self.sound.read(clip, float(times[len(times) // 2]))
      pixels, covered = clip.fitted(chosen, self.fitting)
    return {
      "clip": pixels,
      "image_size": covered,
      "frame_times": times.astype(np.float32),
      "label": record["label"],
      **sound,
    }


def middle_frame(pixels: ImageTransform) -> OneFrame:
  """Makes the transform that evaluations use: the frame in the middle of a clip, as an image."""
  return OneFrame(pixels, Course(1, 1, "frames", "centre"), SoundWindow(0.0, 1))


def even_frames(count: int, height: int, width: int, interpolation: str = "bilinear") -> SeveralFrames:
  """Makes the transform that the classification of whole clips uses: `count` frames at equal distances.

  The frames are resized to the smallest size that covers the canvas of height x width pixels, and the centre
  is cut out. Elements: those of `frames`.
  """
  fit = Fit((height, width), "crop", interpolation).check()
  return SeveralFrames(fit, EvenCourse(count), SoundWindow(0.0, 1))


def frame(
  frame: Frame,
  *,
  start: Literal["random", "centre", "first"] = "random",
  sound_seconds: float = 0.0,
  rate: int = 16000,
) -> OneFrame:
  """Makes the transform for one frame of a clip as an image, so that methods for images train on video.

  Elements: "image" and "label" as `host.image` makes them of photographs; with `sound_seconds` also "sound"
    f32[round(sound_seconds * rate)], mono, in [-1, 1], around the moment of the frame.

  Args:
    start: which frame. With sound, of those around which the whole window is heard.
    sound_seconds: length of the window of sound; 0: none.
    rate: samples of sound a second.
  Raises: ValueError for values out of range. The transform raises DecodeError for a clip that cannot be
    decoded, or whose sound is missing or too short; ImportError if PyAV is not installed.
  """
  return OneFrame(
    image_transform(frame), Course(1, 1, "frames", start).check(), SoundWindow(sound_seconds, rate).check()
  )


def frames(
  frame: Frame,
  *,
  count: int = 8,
  step: float = 1.0,
  unit: Literal["frames", "seconds"] = "frames",
  start: Literal["random", "centre", "first"] = "random",
  fit: Literal["pad", "crop", "squash"] = "crop",
  height: int = 0,
  width: int = 0,
  sound_seconds: float = 0.0,
  rate: int = 16000,
) -> SeveralFrames:
  """Makes the transform for several frames of a clip, in order.

  Elements: "clip" uint8[count, height, width, 3]; "image_size" i32[2], the (height, width) of the upper left
    part of the canvas that the frames cover; "frame_times" f32[count], seconds from the clip's first frame;
    "label" i32[]; with `sound_seconds` also "sound" f32[round(sound_seconds * rate)], mono, in [-1, 1],
    around the moment of frame `count // 2` of these.

  Args:
    count: number of frames.
    step: from one frame to the next, in `unit`; with "seconds" the frame is taken that is shown at that
      moment, so that clips of different or variable rates run equally fast.
    start: which frame is the first: "random"; "centre": the frames lie in the middle of the clip; "first".
    fit: "crop": the frames are resized to the smallest size that covers the canvas, and the centre is cut
      out; "squash": they are resized to the canvas; "pad": as in `host.image_mask`.
    height, width: of the canvas in pixels; 0: `frame.size`.
    sound_seconds, rate: as in `frame`.
  Raises: ValueError for values out of range. The transform raises DecodeError for a clip that cannot be
    decoded or is too short, or whose sound is missing or too short; ImportError if PyAV is not installed.
  """
  return SeveralFrames(
    make_fit(frame, fit, "frames", height, width),
    Course(count, step, unit, start).check(),
    SoundWindow(sound_seconds, rate).check(),
  )
