"""An environment that the tests share."""

import pytest

from ssl_jax.control.environment import Environment, Setup


@pytest.fixture(scope="module")
def cartpole(simulator, tmp_path_factory):
  """Cartpole seen in pictures of 48 pixels, with a clip of moving stripes for the world `video`."""
  import numpy as np
  from PIL import Image

  folder = tmp_path_factory.mktemp("clips") / "stripes"
  folder.mkdir()
  for number in range(4):
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[:, number::4] = (255, 0, 255)
    Image.fromarray(stripes).save(folder / f"{number:05d}.png")
  made = Environment(Setup(size=48, videos=str(folder.parent)))
  yield made
  made.close()
