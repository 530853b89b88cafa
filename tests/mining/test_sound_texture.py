"""Tests of the statistics of sound: the filterbank, modulations, and what the summary does not depend on."""

import numpy as np
import pytest

from ssl_jax.mining import sound_texture
from ssl_jax.mining.sound_texture import CHANNELS, GROUPS, MODULATIONS, RATE, SIZE

COUNT = round(3.75 * RATE)
TIME = np.arange(COUNT) / RATE


def noise(seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=COUNT).astype(np.float32)


def correlations(summary: np.ndarray) -> list[np.ndarray]:
  ends = np.cumsum([CHANNELS - offset for offset in sound_texture.OFFSETS])
  return np.split(summary[GROUPS.correlation], ends[:-1])


def test_squared_responses_sum_to_one_everywhere():
  responses = sound_texture.filterbank(np.linspace(0, 10_000, 40_001))
  assert responses.shape == (32, 40_001) and responses.min() >= 0
  np.testing.assert_allclose(np.square(responses).sum(0), 1, atol=1e-10)


def test_the_scale_and_the_cut_offs_are_the_published_ones():
  assert sound_texture.erb_number(1000.0) == pytest.approx(15.5725, abs=1e-4)
  published = (
    "20 51.69 87.42 127.7 173.11 224.3 282.01 347.07 420.42 503.1 596.32 701.41 819.89 953.45 1104.02"
  )
  np.testing.assert_allclose(sound_texture.cut_offs()[:15], [float(f) for f in published.split()], atol=5e-3)
  assert sound_texture.cut_offs()[-2:] == pytest.approx([8844.46, 10_000], abs=5e-3)


def test_the_summary_has_502_numbers_in_four_groups():
  sizes = [part.stop - part.start for part in GROUPS]
  assert sizes == [32 + 1, 32, 320, 31 + 30 + 29 + 27] and sum(sizes) == SIZE == 502
  found = sound_texture.summarize_sound(noise())
  assert found.shape == (502,) and found.dtype == np.float32 and np.isfinite(found).all()
  np.testing.assert_array_equal([part.size for part in correlations(found)], [31, 30, 29, 27])


def test_envelopes_of_neighbours_in_noise_are_correlated_and_those_of_distant_bands_are_not():
  near, *_, far = correlations(sound_texture.summarize_sound(noise()))
  assert near.mean() > 0.05 and abs(far.mean()) < 0.02


def test_the_gain_does_not_matter():
  found, louder = (sound_texture.summarize_sound(gain * noise()) for gain in (0.1, 1.0))
  np.testing.assert_allclose(louder, found, atol=1e-6)


def test_time_can_run_backwards():
  forwards, backwards = (sound_texture.summarize_sound(s) for s in (noise(), noise()[::-1]))
  np.testing.assert_allclose(backwards, forwards, atol=2e-3)


def test_a_modulated_tone_has_its_energy_in_the_band_of_its_rate():
  tone = (np.sin(2 * np.pi * 1000 * TIME) * (1 + 0.8 * np.sin(2 * np.pi * 4.5 * TIME))).astype(np.float32)
  edges = sound_texture.cut_offs()
  energy = sound_texture.summarize_sound(tone)[GROUPS.modulation].reshape(CHANNELS, len(MODULATIONS))
  inside = [band + 1 for band in range(30) if edges[band] < 1000 < edges[band + 2]]
  assert len(inside) == 2
  for channel in inside:
    assert MODULATIONS[energy[channel].argmax()] == pytest.approx(4.546, abs=1e-3)
    assert energy[channel].max() > 0.5  # it is relative to the variance of the envelope


def test_modulation_filters_have_their_quality_and_cover_all_rates():
  np.testing.assert_allclose(MODULATIONS[[0, 3, -1]], [0.685, 4.546, 200], atol=1e-3)
  assert len(MODULATIONS) == 10
  rates = np.geomspace(0.3, 500, 100_001)
  filters = sound_texture.modulation_filters(rates)
  for rate, response in zip(MODULATIONS, filters, strict=True):
    passed = rates[np.square(response) >= 0.5]
    assert np.ptp(passed) == pytest.approx(rate / 2, rel=1e-3)  # half power over a width of rate / Q, Q = 2
    assert rates[response.argmax()] == pytest.approx(rate, rel=1e-3) and response.max() <= 1
  inside = (rates > MODULATIONS[0]) & (rates < MODULATIONS[-1])
  assert np.square(filters[:, inside]).sum(0).min() > 0.2
  assert not sound_texture.modulation_filters(np.zeros(1)).any()


def test_a_tone_is_heard_in_the_channels_of_its_frequency_only():
  for frequency in (60.0, 440.0, 5000.0):
    mean = sound_texture.envelopes(np.sin(2 * np.pi * frequency * TIME).astype(np.float32)).mean(1)
    edges = sound_texture.cut_offs()
    loud = {band + 1 for band in range(30) if edges[band] < frequency < edges[band + 2]}
    assert int(mean.argmax()) in loud and mean[sorted(set(range(32)) - loud)].max() < 0.3 * mean.max()


def test_an_envelope_is_the_compressed_amplitude_and_nothing_is_aliased():
  carrier, rate = 2000.0, 30.0
  amplitude = 1 + 0.5 * np.cos(2 * np.pi * rate * TIME)
  sound = (amplitude * np.sin(2 * np.pi * carrier * TIME)).astype(np.float32)
  found = sound_texture.envelopes(sound)
  channel = int(found.mean(1).argmax())
  response = sound_texture.filterbank(np.array([carrier]))[channel, 0]
  wanted = (response * amplitude[::50]) ** 0.3
  assert np.corrcoef(found[channel], wanted)[0, 1] > 0.999
  np.testing.assert_allclose(found[channel].mean(), wanted.mean(), rtol=0.01)


def test_a_constant_envelope_has_no_rhythm_and_no_correlations():
  steady = np.ones((CHANNELS, 1500), np.float32)
  found = sound_texture.summarize(steady, 0.01)
  assert not found[GROUPS.modulation].any() and not found[GROUPS.correlation].any()
  np.testing.assert_allclose(found[GROUPS.mean], [1.0] * 32 + [32.0], rtol=1e-6)
