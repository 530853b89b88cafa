"""Photographs for the augmentation tests: two of scikit-learn's, reduced in size."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
  """uint8[40, 60, 3]: a landscape with many colours, to which black, white and grey patches are added."""
  image = Image.fromarray(load_sample_image("china.jpg")).resize((60, 40), Image.Resampling.LANCZOS)
  image = np.asarray(image).copy()
  image[:3, :4], image[3:6, :4], image[6:9, :4] = 0, 255, 128  # the hue of grey is undefined
  return image


@pytest.fixture(scope="session")
def square() -> np.ndarray:
  """uint8[32, 32, 3]: a flower."""
  return np.asarray(
    Image.fromarray(load_sample_image("flower.jpg")).crop((100, 50, 400, 350)).resize((32, 32))
  )
