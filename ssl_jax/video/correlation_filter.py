"""A kernelised correlation filter (KCF), with OpenCV and SciPy: follows a box of fixed size through frames.

Boxes are (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import cv2
import numpy as np
import scipy.fft

PADDED = 2.5  # side of the window that is searched over that of the box
RIDGE = 1e-4  # lambda of the ridge regression
TARGET = 0.1  # standard deviation of the wanted response over the mean side of the box
_EXCLUDED = 5  # cells on each side of the peak that are not part of the sidelobe
_BINS = 18  # directions of gradients
_CLIPPED = 0.2  # a larger part of the energy around a cell counts no more


class Features(NamedTuple):
  """What the filter compares, and its constants."""

  compute: Callable[[np.ndarray], np.ndarray]  # window f32[S, S] in [0, 1] -> f32[C, n, n]
  side: int  # S: pixels to which the window is resized
  bandwidth: float  # sigma of the Gaussian kernel
  rate: float  # with which the filter follows the look of the box


class Tracker(NamedTuple):
  """A filter and where its box is. The arrays are spectra, of a real transform in two dimensions."""

  centre: np.ndarray  # f64[2], (x, y) in pixels
  size: np.ndarray  # f64[2], (width, height) in pixels
  look: np.ndarray  # c64[C, n, n / 2 + 1] of the features
  weights: np.ndarray  # c64[n, n / 2 + 1]: the solution of the regression
  features: Features

  @property
  def box(self) -> np.ndarray:
    """f32[4]: the box."""
    return np.concatenate([self.centre - self.size / 2, self.centre + self.size / 2]).astype(np.float32)


def start(frame: np.ndarray, box: np.ndarray, features: Literal["hog", "pixels"] = "hog") -> Tracker:
  """Learns what is in a box.

  Args:
    frame: uint8[H, W], grey.
    box: f32[4].
    features: "hog": histograms of the directions of gradients in cells of 4x4 pixels of the resized window;
      "pixels": grey levels.
  Source: Henriques, Caseiro, Martins, Batista 2015, with their constants.
  """
  box = np.asarray(box, np.float64)
  centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
  kind = FEATURES[features]
  look, weights = _learn(_observe(frame, centre, size, kind), kind)
  return Tracker(centre, size, look, weights, kind)


def follow(tracker: Tracker, frame: np.ndarray) -> tuple[Tracker, float]:
  """Finds the box in the next frame uint8[H, W] and learns what it looks like now.

  Returns: (the tracker, the peak-to-sidelobe ratio of the response: the height of its peak above the mean of
    the responses at a distance from it, in their standard deviations).
  """
  kind, sides = tracker.features, tracker.look.shape[1]
  seen = _observe(frame, tracker.centre, tracker.size, kind)
  kernel = _correlate(tracker.look, seen, kind)
  response = _inverse(_transform(kernel) * tracker.weights)
  shift, sharpness = _find_peak(response)
  centre = np.round(tracker.centre) + shift[::-1] * (PADDED * tracker.size / sides)
  look, weights = _learn(_observe(frame, centre, tracker.size, kind), kind)
  blend = lambda old, new: (1 - kind.rate) * old + kind.rate * new
  return tracker._replace(
    centre=centre, look=blend(tracker.look, look), weights=blend(tracker.weights, weights)
  ), sharpness


def _observe(frame: np.ndarray, centre: np.ndarray, size: np.ndarray, kind: Features) -> np.ndarray:
  """c64[C, n, n / 2 + 1]: the spectrum of the tapered features of the window around a box."""
  patch = _cut(frame, np.round(centre), PADDED * size)
  small = cv2.resize(patch, (kind.side, kind.side), interpolation=cv2.INTER_AREA)
  found = kind.compute(small.astype(np.float32) / 255)
  return _transform(found * _taper(found.shape[1])[None])


def _cut(frame: np.ndarray, centre: np.ndarray, size: np.ndarray) -> np.ndarray:
  """The window of this centre and size; beyond the frame its edges are repeated."""
  width, height = np.maximum(np.round(size), 1).astype(int)
  left, top = centre.astype(int) - (width // 2, height // 2)
  rows = np.clip(np.arange(top, top + height), 0, frame.shape[0] - 1)
  columns = np.clip(np.arange(left, left + width), 0, frame.shape[1] - 1)
  return frame[rows[:, None], columns[None]]


def _learn(look: np.ndarray, kind: Features) -> tuple[np.ndarray, np.ndarray]:
  """(The spectrum of the features, the weights of the regression whose response is a Gaussian at the box)."""
  spectrum = _transform(_correlate(look, look, kind))
  return look, _target(look.shape[1]) / (spectrum + RIDGE)


def _correlate(look: np.ndarray, seen: np.ndarray, kind: Features) -> np.ndarray:
  """f32[n, n]: the Gaussian kernel of the features with the seen ones at every cyclic shift."""
  channels, sides = look.shape[:2]
  products = _inverse((look.conj() * seen).sum(0))
  distance = _energy(look) + _energy(seen) - 2 * products
  scale = channels * sides**2 * kind.bandwidth**2
  return np.exp(-np.maximum(distance, 0) / scale).astype(np.float32)


def _transform(values: np.ndarray) -> np.ndarray:
  """The spectrum c64[..., n, n / 2 + 1] of f32[..., n, n], n even."""
  return np.asarray(scipy.fft.rfft2(values))


def _inverse(spectrum: np.ndarray) -> np.ndarray:
  """f32[..., n, n], whose spectrum this is."""
  sides = spectrum.shape[-2]
  return np.asarray(scipy.fft.irfft2(spectrum, (sides, sides)))


def _energy(spectrum: np.ndarray) -> float:
  """The sum of the squared features, by Parseval; all but the outer columns of the spectrum stand for two."""
  squares = np.square(np.abs(spectrum)).sum((0, 1))
  doubled = 2 * squares.sum() - squares[0] - squares[-1]
  return float(doubled / spectrum.shape[1] ** 2)


def _find_peak(response: np.ndarray) -> tuple[np.ndarray, float]:
  """((down, across) f64[2] in cells, from the box; the peak-to-sidelobe ratio) of a response f32[n, n]."""
  sides = len(response)
  row, column = (int(i) for i in np.unravel_index(response.argmax(), response.shape))
  peak = response[row, column]
  shift = np.array(
    [
      row + _refine(response[row - 1, column], peak, response[(row + 1) % sides, column]),
      column + _refine(response[row, column - 1], peak, response[row, (column + 1) % sides]),
    ]
  )
  near = np.arange(-_EXCLUDED, _EXCLUDED + 1)
  sidelobe = np.ones(response.shape, bool)
  sidelobe[np.ix_((row + near) % sides, (column + near) % sides)] = False
  others = response[sidelobe]
  ratio = (peak - others.mean()) / max(float(others.std()), 1e-6)
  return np.where(shift > sides / 2, shift - sides, shift), float(ratio)


def _refine(before: float, peak: float, after: float) -> float:
  """Where the parabola through three equally spaced values is greatest, in (-0.5, 0.5)."""
  curvature = 2 * peak - before - after
  return float(0.5 * (after - before) / curvature) if curvature > 0 else 0.0


@functools.lru_cache(maxsize=4)
def _taper(sides: int) -> np.ndarray:
  """f32[n, n]: a Hann window."""
  line = np.hanning(sides + 2)[1:-1].astype(np.float32)
  return line[:, None] * line[None]


@functools.lru_cache(maxsize=4)
def _target(sides: int) -> np.ndarray:
  """c64[n, n / 2 + 1]: the spectrum of a Gaussian around the first cell, the shift of 0."""
  distance = np.minimum(np.arange(sides), sides - np.arange(sides)) / (TARGET * sides / PADDED)
  line = np.exp(-0.5 * np.square(distance)).astype(np.float32)
  return _transform(line[:, None] * line[None])


def _hog(window: np.ndarray, cell: int = 4) -> np.ndarray:
  """f32[31, n, n]: of each cell the histogram of 18 directions of gradients, that of 9 without their sign,
  and four sums, all divided by the energy of four blocks around the cell.

  Source: Felzenszwalb, Girshick, McAllester, Ramanan 2010, section 6, without interpolation between cells.
  """
  across, down = (cv2.Sobel(window, cv2.CV_32F, *d, ksize=1) for d in ((1, 0), (0, 1)))
  size, angle = cv2.cartToPolar(across, down)
  sides = len(window) // cell
  places = np.arange(len(window)) // cell
  place = (places[:, None] * sides + places[None]) * _BINS
  turn = angle * np.float32(_BINS / (2 * np.pi))
  lower = turn.astype(np.int32)
  part = turn - lower
  found = np.zeros(sides * sides * _BINS)
  for share, offset in ((1 - part, 0), (part, 1)):
    index = (place + (lower + offset) % _BINS).ravel()
    found += np.bincount(index, (size * share).ravel(), len(found))
  signed = found.reshape(sides, sides, _BINS).transpose(2, 0, 1).astype(np.float32)
  plain = signed[: _BINS // 2] + signed[_BINS // 2 :]
  energy = np.pad(np.square(plain).sum(0), 1, "edge")
  blocks = energy[:-1, :-1] + energy[1:, :-1] + energy[:-1, 1:] + energy[1:, 1:]
  made, total = np.concatenate([signed, plain]), 0.0
  sums = []
  for block in (blocks[:-1, :-1], blocks[1:, :-1], blocks[:-1, 1:], blocks[1:, 1:]):
    part = np.minimum(made / np.sqrt(block + 1e-4)[None], _CLIPPED)
    total = total + 0.5 * part
    sums.append(0.2357 * part[:_BINS].sum(0))
  return np.concatenate([total, np.stack(sums)])


def _pixels(window: np.ndarray) -> np.ndarray:
  """f32[1, S, S]: the grey levels around their mean."""
  return (window - window.mean())[None]


FEATURES = {
  "hog": Features(_hog, side=128, bandwidth=0.5, rate=0.02),
  "pixels": Features(_pixels, side=64, bandwidth=0.2, rate=0.075),
}
