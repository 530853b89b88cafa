import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.augment.record_moves import MEAN
from ssl_jax.tasks import sliding_windows
from ssl_jax.tasks.sliding_windows import Windows, place_windows

CLASSES = 5


def smooth(params, model_state, images):
  """A "network" whose logits depend on a pixel's neighbours and on the border of its window."""
  padded = jnp.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
  height, width = images.shape[1:3]
  near = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3))
  return near @ params


@functools.partial(jax.jit, static_argnames=("predict", "windows", "together", "canvas"))
def segment(params, images, sizes, label_sizes, *, predict, windows, together, canvas):
  totals = sliding_windows.start_totals(len(images), CLASSES, windows)
  for first in range(0, windows.count, together):
    totals = sliding_windows.add_windows(
      params, {}, totals, images, sizes, jnp.int32(first), predict=predict, windows=windows, together=together
    )
  return totals, sliding_windows.classes_of(totals, sizes, label_sizes, canvas)


@pytest.fixture
def params():
  return jax.random.normal(jax.random.key(0), (3, CLASSES))


def on_canvas(image: np.ndarray, canvas: tuple[int, int]) -> jax.Array:
  missing = [(0, full - side) for full, side in zip(canvas, image.shape)]
  return jnp.asarray(np.pad(image, [*missing, (0, 0)]))[None]


def slide(image: np.ndarray, params, window: int, stride: int) -> np.ndarray:
  """The mean logits of one image, window after window, with the rule of MMSegmentation."""
  height, width = max(image.shape[0], window), max(image.shape[1], window)
  padded = np.tile(np.float32(MEAN), (height, width, 1))
  padded[: image.shape[0], : image.shape[1]] = image / 255
  total, count = np.zeros((height, width, CLASSES)), np.zeros((height, width, 1))
  for i in range(max(image.shape[0] - window + stride - 1, 0) // stride + 1):
    for j in range(max(image.shape[1] - window + stride - 1, 0) // stride + 1):
      bottom, right = min(i * stride + window, height), min(j * stride + window, width)
      top, left = max(bottom - window, 0), max(right - window, 0)
      view = padded[top:bottom, left:right]
      total[top:bottom, left:right] += np.asarray(smooth(params, {}, view[None]))[0]
      count[top:bottom, left:right] += 1
  return (total / count)[: image.shape[0], : image.shape[1]]


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("shape", [(20, 31), (12, 12), (7, 30), (40, 33), (13, 40)])
def test_windows_are_those_of_mmsegmentation(shape, together, params):
  image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
  windows = place_windows((40, 40), 12, 8)
  size = jnp.array([shape], jnp.int32)
  totals, found = segment(
    params,
    on_canvas(image, (40, 40)),
    size,
    size,
    predict=smooth,
    windows=windows,
    together=together,
    canvas=(40, 40),
  )
  expected = slide(image, params, 12, 8)
  mean = np.asarray(totals.logits / totals.count[..., None])[0, : shape[0], : shape[1]]
  np.testing.assert_allclose(mean, expected, atol=1e-4)
  # Equal but for pixels whose two largest logits are almost equal.
  best = np.sort(expected, -1)
  clear = best[..., -1] - best[..., -2] > 1e-3
  got = np.asarray(found)[0, : shape[0], : shape[1]]
  np.testing.assert_array_equal(got[clear], expected.argmax(-1)[clear])


def test_every_needed_window_is_counted_once_and_covers_the_image():
  windows = place_windows((50, 70), 16, 10)
  sizes = jnp.array([[50, 70], [16, 16], [5, 70], [27, 36]], jnp.int32)
  starts, needed = sliding_windows.window_starts(windows, sizes)
  assert starts.shape == (4, windows.count, 2)
  for (height, width), places, used in zip(np.asarray(sizes), np.asarray(starts), np.asarray(needed)):
    places = places[used]
    assert len({tuple(place) for place in places}) == len(places)
    covered = np.zeros((max(height, 16), max(width, 16)), bool)
    for top, left in places:
      assert top + 16 <= max(height, 16) and left + 16 <= max(width, 16)
      covered[top : top + 16, left : left + 16] = True
    assert covered[:height, :width].all()
  assert needed.sum(1).tolist() == [5 * 7, 1, 7, 3 * 3]


def test_a_constant_map_stays_constant():
  constant = lambda params, state, images: jnp.broadcast_to(params, (*images.shape[:3], CLASSES))
  logits = jnp.arange(CLASSES, dtype=jnp.float32)
  size = jnp.array([[37, 29]], jnp.int32)
  totals, _ = segment(
    logits,
    jnp.zeros((1, 40, 40, 3)),
    size,
    size,
    predict=constant,
    windows=place_windows((40, 40), 12, 7),
    together=3,
    canvas=(40, 40),
  )
  mean = totals.logits[0, :37, :29] / totals.count[0, :37, :29, None]
  np.testing.assert_allclose(mean, np.broadcast_to(logits, mean.shape), rtol=1e-6)


@pytest.mark.parametrize("window", [0, 12])
def test_a_larger_canvas_changes_nothing(window, params):
  """With windows, an image does not see its canvas. A whole image sees its padding, so its canvas is that of
  the largest image of the split.
  """
  image = np.random.default_rng(1).integers(0, 256, (24, 30, 3), np.uint8)
  size = jnp.array([[24, 30]], jnp.int32)
  results = []
  for canvas in ((24, 30), (40, 44)):
    windows = place_windows(canvas if window else (24, 30), window, 8 if window else 0)
    images = on_canvas(image, canvas if window else (24, 30))
    options = dict(predict=smooth, windows=windows, together=2, canvas=canvas)
    results.append(segment(params, images, size, size, **options)[1][0, :24, :30])
  np.testing.assert_array_equal(*results)


def test_logits_are_resized_to_the_label(params):
  image = np.random.default_rng(2).integers(0, 256, (20, 26, 3), np.uint8)
  size, label = jnp.array([[20, 26]], jnp.int32), jnp.array([[33, 47]], jnp.int32)
  totals, found = segment(
    params,
    on_canvas(image, (20, 26)),
    size,
    label,
    predict=smooth,
    windows=place_windows((20, 26), 0, 0),
    together=1,
    canvas=(100, 60),
  )
  logits = jax.image.resize(totals.logits[0], (33, 47, CLASSES), "linear", antialias=False)
  best = np.sort(np.asarray(logits), -1)
  clear = best[..., -1] - best[..., -2] > 1e-4
  np.testing.assert_array_equal(np.asarray(found)[0, :33, :47][clear], np.asarray(logits).argmax(-1)[clear])
  assert clear.mean() > 0.99 and found.shape == (1, 100, 60)


def test_the_defaults():
  assert place_windows((180, 240), 0, 0) == Windows((180, 240), (180, 240), (180, 240))
  assert place_windows((180, 240), 0, 0).count == 1
  assert place_windows((100, 240), 129, 0) == Windows((129, 240), (129, 129), (86, 86))
  assert place_windows((512, 2048), 512, 341).grid == (1, 6)
