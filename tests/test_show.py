"""The gallery a person looks at."""

import re

import numpy as np
import pytest
from PIL import Image

from ssl_jax.config import TrainConfig, check, recipe
from ssl_jax.show import Wanted, show

CONFIG = check(TrainConfig, recipe(
    method=dict(name="simclr"), encoder=dict(name="resnet10"), augment=dict(name="moco_v2", views=2, size=32),
    optimizer=dict(learning_rate=0.1), data=dict(name="sample", size=32), batch_size=16, epochs=1.0))


def test_gallery_is_drawn_and_depends_on_the_image(tmp_path, capsys):
  pixels = []
  for index in (0, 5):
    path = tmp_path / "deep" / f"{index}.png"
    show(["augmentations"], Wanted(CONFIG, output=str(path), index=index))
    pixels.append(np.asarray(Image.open(path).convert("RGB")))
    assert f"wrote {path}" in capsys.readouterr().out
  assert min(pixels[0].shape[:2]) > 500 and (pixels[0] != pixels[1]).any()


@pytest.mark.parametrize("words, output, index, message", [
    (["augmentation"], "x.png", 0, "takes one picture; did you mean 'augmentations'"),
    ([], "x.png", 0, "takes one picture; known: augmentations, reconstructions"),
    (["augmentations"], "x.jpg", 0, "x.jpg is not a .png file"),
    (["augmentations"], "x.png", 8000, "--index=8000: the data set has 8000 images; use 0 to 7999")])
def test_refusals(words, output, index, message, tmp_path):
  with pytest.raises(ValueError, match=re.escape(message)):
    show(words, Wanted(CONFIG, output=str(tmp_path / output), index=index))
