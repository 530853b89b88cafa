"""Summarises a few seconds of sound by the statistics of its texture: how loud each band is, how it varies,
and how the bands go together.

Source: McDermott, Simoncelli 2011; Owens et al. 2016, who predict such a summary from a frame.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

RATE = 20_000  # samples of sound a second
ENVELOPE_RATE = 400  # samples of an envelope a second
BANDS = 30  # between a low-pass and a high-pass channel
CHANNELS = BANDS + 2
LOWEST, HIGHEST = 20.0, 10_000.0  # Hz
COMPRESSION = 0.3  # exponent
LEVEL = 0.01  # root mean square that a window is scaled to
# Every second one of 20 rates from 0.5 to 200 Hz in equal ratios; the paper has ten bands.
MODULATIONS = np.geomspace(0.5, 200.0, 20)[1::2]  # Hz
QUALITY = 2.0  # rate of a modulation filter over its width at half power
OFFSETS = (1, 2, 3, 5)  # between two channels whose envelopes are correlated
QUIET = 1e-6  # standard deviation of an envelope that counts as constant

_STEP = RATE // ENVELOPE_RATE


class Groups(NamedTuple):
  """The places of the statistics in a summary."""

  mean: slice  # of each envelope, and the loudness
  deviation: slice  # of each envelope
  modulation: slice  # energy of each envelope in each band of rates
  correlation: slice  # of the envelopes of two channels


_PAIRS = sum(CHANNELS - offset for offset in OFFSETS)
_ENDS = np.cumsum([CHANNELS + 1, CHANNELS, CHANNELS * len(MODULATIONS), _PAIRS])
GROUPS = Groups(*(slice(int(end - size), int(end)) for end, size in zip(_ENDS, np.diff([0, *_ENDS]))))
SIZE = int(_ENDS[-1])  # 502


def erb_number(frequency: np.ndarray | float) -> np.ndarray:
  """The place of a frequency in Hz on the scale of equivalent rectangular bandwidths.

  Source: Glasberg, Moore 1990.
  """
  return 9.265 * np.log1p(np.asarray(frequency, np.float64) / (24.7 * 9.265))


def cut_offs() -> np.ndarray:
  """f64[CHANNELS]: frequencies in Hz at equal distances on the scale; band k covers those from k to k + 2."""
  scale = np.linspace(erb_number(LOWEST), erb_number(HIGHEST), CHANNELS)
  return 24.7 * 9.265 * np.expm1(scale / 9.265)


def filterbank(frequencies: np.ndarray) -> np.ndarray:
  """The response of each channel, f64[CHANNELS, F] in [0, 1], at frequencies f64[F] in Hz.

  Channel 0 is the low-pass and the last one the high-pass channel. The squares sum to 1 at each frequency.
  """
  place, edges = erb_number(frequencies), erb_number(cut_offs())
  found = np.zeros((CHANNELS, len(place)))
  for band in range(BANDS):
    low, high = edges[band], edges[band + 2]
    inside = (place > low) & (place < high)
    found[band + 1, inside] = np.cos(np.pi * (place[inside] - (low + high) / 2) / (high - low))
  rest = np.sqrt(np.maximum(1 - np.square(found).sum(0), 0))
  middle = edges[CHANNELS // 2]
  found[0], found[-1] = np.where(place < middle, rest, 0), np.where(place < middle, 0, rest)
  return found


def modulation_filters(frequencies: np.ndarray) -> np.ndarray:
  """The response of each filter of modulations, f64[M, F] in [0, 1], at rates f64[F] in Hz: half a cosine
  over the logarithm of the rate.
  """
  width = 4 * np.arcsinh(1 / (2 * QUALITY))  # half a cosine has half its power over half its width
  with np.errstate(divide="ignore"):
    distance = np.log(frequencies) - np.log(MODULATIONS)[:, None]
  return np.where(np.abs(distance) < width / 2, np.cos(np.pi * np.clip(distance / width, -0.5, 0.5)), 0)


def envelopes(sound: np.ndarray) -> np.ndarray:
  """The compressed envelope of each channel, f32[CHANNELS, len(sound) // 50], at ENVELOPE_RATE.

  Args:
    sound: f32[n] at RATE; n must be a multiple of 50.
  """
  spectrum = np.fft.rfft(sound.astype(np.float32))
  made = np.empty((CHANNELS, len(sound) // _STEP), np.float32)
  for channel, response in enumerate(_responses(len(sound))):
    analytic = np.zeros(len(sound), np.complex64)  # its negative frequencies are zero
    analytic[: len(spectrum)] = 2 * spectrum * response
    analytic[0] /= 2
    analytic[len(sound) // 2] /= 1 + (len(sound) % 2 == 0)
    wide = np.abs(np.fft.ifft(analytic)) ** np.float32(COMPRESSION)
    low = np.fft.rfft(wide)[: made.shape[1] // 2 + 1]  # nothing above half of the new rate remains
    made[channel] = np.fft.irfft(low, made.shape[1]) / _STEP
  return np.maximum(made, 0)


def summarize(envelope: np.ndarray, level: float) -> np.ndarray:
  """The statistics of a window, f32[SIZE], in the order of GROUPS; they do not depend on the gain.

  The loudness is the root mean square, over time, of the sum of all envelopes. The published vector has 502
  numbers too, but which of them are correlations is not known.

  Args:
    envelope: f32[CHANNELS, n] of the window as recorded.
    level: the root mean square of the window's sound; it is scaled to LEVEL.
  """
  scaled = envelope.astype(np.float64) * (LEVEL / level) ** COMPRESSION
  mean, deviation = scaled.mean(1), scaled.std(1)
  steady = deviation <= QUIET
  spread = np.where(steady, 1.0, deviation)
  centred = np.where(steady[:, None], 0.0, scaled - mean[:, None]) / spread[:, None]
  count = scaled.shape[1]
  power = np.abs(np.fft.rfft(centred)) ** 2 / count**2
  power[:, 1 : (count + 1) // 2] *= 2  # the negative frequencies
  rates = np.fft.rfftfreq(count, 1 / ENVELOPE_RATE)
  modulation = power @ np.square(modulation_filters(rates)).T
  pairs = [(centred[:-offset] * centred[offset:]).mean(1) for offset in OFFSETS]
  loudness = np.sqrt(np.square(scaled.sum(0)).mean())
  parts = (mean, [loudness], deviation, modulation.ravel(), *pairs)
  return np.concatenate(parts).astype(np.float32)


def loudness_of(sound: np.ndarray) -> float:
  """The root mean square of sound f32[n]."""
  return float(np.sqrt(np.square(sound, dtype=np.float64).mean()))


def summarize_sound(sound: np.ndarray) -> np.ndarray:
  """The statistics f32[SIZE] of a window of sound f32[n] at RATE, which must not be silent."""
  return summarize(envelopes(sound), loudness_of(sound))


@functools.lru_cache(maxsize=4)
def _responses(count: int) -> np.ndarray:
  """The filterbank at the frequencies of the spectrum of `count` samples, f32[CHANNELS, count // 2 + 1]."""
  return filterbank(np.fft.rfftfreq(count, 1 / RATE)).astype(np.float32)
