"""Lab and colour classes, compared with scikit-image, brute force and the values of the paper's code."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color

from ssl_jax.methods.pretext import cielab, colour_bins

PRIOR = tuple(float(v) for v in np.random.default_rng(3).dirichlet(np.full(313, 0.3)))


@pytest.mark.parametrize(
  "rgb, wanted",
  [
    ((255, 0, 0), (53.2406, 80.0923, 67.2028)),
    ((0, 255, 0), (87.7351, -86.1830, 83.1797)),
    ((0, 0, 255), (32.2957, 79.1856, -107.8573)),
    ((128, 128, 128), (53.585, 0, 0)),
    ((10, 200, 120), (71.3688, -59.8287, 28.5979)),
  ],
)
def test_lab_of_known_colours(rgb, wanted):
  np.testing.assert_allclose(cielab.rgb_to_lab(jnp.asarray(rgb, jnp.float32) / 255), wanted, atol=0.02)


def test_lab_is_scikit_images_and_comes_back():
  images = np.random.default_rng(0).random((4, 9, 7, 3), np.float32) ** 2
  images[0, 0, :3] = 0, 1, 0.01
  found = jax.jit(cielab.rgb_to_lab)(images)
  np.testing.assert_allclose(found, skimage.color.rgb2lab(images.astype(np.float64)), atol=2e-3)
  np.testing.assert_allclose(jax.jit(cielab.lab_to_rgb)(found), images, atol=1e-4)
  beyond = np.array([[60, 100, -100], [90, -80, 80], [5, 0, -60]], np.float32)
  with warnings.catch_warnings(action="ignore"):  # scikit-image warns that it clips
    wanted = skimage.color.lab2rgb(beyond.astype(np.float64))
  np.testing.assert_allclose(cielab.lab_to_rgb(beyond), wanted, atol=2e-3)
  one = jnp.asarray(images[1, 2])
  np.testing.assert_allclose(jax.vmap(cielab.rgb_to_lab)(images[1])[2], cielab.rgb_to_lab(one), atol=1e-4)


def test_table_has_the_released_313_bins():
  assert colour_bins.TABLE.shape == (313, 2) and colour_bins.TABLE[120].tolist() == [0, 0]
  rows = np.bincount((colour_bins.TABLE[:, 0] + 90) // 10)
  assert rows.tolist() == [5, 8, 10, 12, 14, 15, 16, 16, 17, 18, 18, 18, 19, 20, 19, 20, 20, 19, 19, 10]
  assert (np.lexsort(colour_bins.TABLE.T[::-1]) == np.arange(313)).all()


@pytest.mark.parametrize(
  "neighbours, wanted",
  [(5, [0.648786, *[0.087804] * 4]), (10, [0.619218, *[0.083802] * 4, *[0.011341] * 4, 0.000208])],
)
def test_encoding_of_grey(neighbours, wanted):
  which, weight = colour_bins.encode_colours(jnp.zeros((1, 2)), colour_bins.make_bins(neighbours=neighbours))
  np.testing.assert_allclose(weight[0], wanted, atol=1e-6)
  assert which[0, 0] == 120 and len(set(np.asarray(which[0]).tolist())) == neighbours


@pytest.mark.parametrize("prior", [(), PRIOR])
@pytest.mark.parametrize("neighbours", [1, 5, 10])
def test_encoding_is_that_of_a_search_through_all_bins(prior, neighbours):
  rgb = np.random.default_rng(1).random((4000, 3), np.float32)
  ab = np.asarray(cielab.rgb_to_lab(jnp.asarray(rgb)))[:, 1:]
  bins = colour_bins.make_bins(prior, neighbours=neighbours)
  which, weight = jax.jit(lambda ab: colour_bins.encode_colours(ab, bins))(ab)
  distance = np.linalg.norm(ab[:, None] - bins.centres[None], axis=-1)
  wanted = np.sort(distance, axis=1)[:, :neighbours]
  np.testing.assert_allclose(np.take_along_axis(distance, np.asarray(which), 1), wanted, atol=1e-3)
  gauss = np.exp(-(wanted**2) / 50)
  np.testing.assert_allclose(weight, gauss / gauss.sum(1, keepdims=True), atol=1e-4)


def test_bins_that_do_not_occur_are_left_out():
  shares = np.zeros(313)
  shares[[120, 5, 200]] = 2, 1, 1
  bins = colour_bins.make_bins(tuple(shares))
  assert len(bins.centres) == 3 and bins.neighbours == 3 and bins.prior.tolist() == [0.25, 0.5, 0.25]


def test_weights_of_rebalancing():
  bins = colour_bins.Bins(
    np.array([[0, 0], [50, 0], [0, 90]], np.float32), np.array([0.7, 0.2, 0.1], np.float32), None, 1
  )
  weights = colour_bins.class_weights(bins, smoothing=0)
  np.testing.assert_allclose(weights, [0.754170, 1.461204, 1.798405], atol=1e-6)
  assert bins.prior @ weights == pytest.approx(1)
  np.testing.assert_allclose(colour_bins.class_weights(bins, uniform=1.0), 1, atol=1e-6)
  full = colour_bins.make_bins(PRIOR)
  # neighbouring bins at distance 10 get exp(-2)
  near = np.exp(-np.square(full.centres[:, None] - full.centres[None]).sum(-1) / 50)
  smooth = near @ full.prior / (near @ full.prior).sum()
  assert smooth @ colour_bins.class_weights(full) == pytest.approx(1, abs=1e-5)


def test_annealing():
  three = colour_bins.Bins(
    np.array([[1, 0], [0, 1], [0, 0]], np.float32), np.ones(3, np.float32) / 3, None, 1
  )
  logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
  np.testing.assert_allclose(
    colour_bins.annealed_mean(logits, three, temperature=0.38), [0.740506, 0.193071], atol=1e-6
  )
  np.testing.assert_allclose(colour_bins.annealed_mean(logits, three, temperature=1.0), [0.5, 0.3], atol=1e-6)


def test_a_bin_encoded_and_decoded_cold_is_itself():
  bins = colour_bins.make_bins()
  which, weight = colour_bins.encode_colours(jnp.asarray(bins.centres), bins)
  target = jnp.zeros((313, 313)).at[jnp.arange(313)[:, None], which].add(weight)
  found = colour_bins.annealed_mean(jnp.log(target + 1e-12), bins, temperature=0.02)
  np.testing.assert_allclose(found, bins.centres, atol=1e-3)
  np.testing.assert_array_equal(
    colour_bins.annealed_mean(jnp.full((313,), -1e3).at[120].set(0), bins), [0, 0]
  )


def test_cross_entropy_is_that_of_the_dense_target():
  rng = np.random.default_rng(0)
  logits, bins = jnp.asarray(rng.normal(size=(6, 313)), jnp.float32), colour_bins.make_bins()
  which, weight = colour_bins.encode_colours(jnp.asarray(rng.uniform(-60, 60, (6, 2)), jnp.float32), bins)
  dense = np.zeros((6, 313))
  np.put_along_axis(dense, np.asarray(which), np.asarray(weight), 1)
  wanted = -(dense * np.asarray(jax.nn.log_softmax(logits), np.float64)).sum(1)
  np.testing.assert_allclose(colour_bins.cross_entropy(logits, which, weight), wanted, rtol=1e-5)
  np.testing.assert_allclose(
    colour_bins.cross_entropy(jnp.zeros((6, 313)), which, weight), np.log(313), rtol=1e-6
  )


def test_counting_finds_the_nearest_bin_of_every_colour():
  rgb = np.random.default_rng(2).random((5000, 3), np.float32)
  ab = np.asarray(cielab.rgb_to_lab(jnp.asarray(rgb)))[:, 1:]
  found = np.asarray(jax.jit(colour_bins.count_colours)(ab))
  nearest = np.linalg.norm(ab[:, None] - colour_bins.TABLE[None], axis=-1).argmin(1)
  # Rounding errors can move a colour across a border between two bins.
  assert found.sum() == 5000 and np.abs(found - np.bincount(nearest, minlength=313)).sum() <= 2


def test_every_8_bit_colour_rounds_to_a_bin():
  side = np.arange(0, 256, 5, dtype=np.float32) / 255
  rgb = np.stack(np.meshgrid(side, side, side), -1).reshape(-1, 3)
  count = colour_bins.count_colours(jax.jit(cielab.rgb_to_lab)(rgb)[:, 1:])
  assert count.sum() == len(rgb) and 230 < (count > 0).sum() <= 261


@pytest.mark.parametrize(
  "prior, message",
  [
    (
      (0.5, 0.5),
      r"must be 313 fractions of pixels, none negative .*, but it has 2 numbers such as \[0.5, 0.5\]",
    ),
    ((-1.0,) * 313, "none negative"),
    ((0.0,) * 313, "must be 313 fractions of pixels"),
  ],
)
def test_refused_priors(prior, message):
  with pytest.raises(ValueError, match=message):
    colour_bins.make_bins(prior)


def test_a_prior_is_read_from_its_file(tmp_path):
  path = tmp_path / "prior.json"
  with pytest.raises(ValueError, match="holds no colour prior .*ssl-jax prepare colour_prior"):
    colour_bins.read_prior(path)
  path.write_text(json.dumps({"colour_prior": PRIOR}))
  assert colour_bins.read_prior(path) == PRIOR and colour_bins.read_prior("") == ()
