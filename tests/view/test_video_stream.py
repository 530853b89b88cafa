"""Pictures of streams: which frames are kept, and their names."""

import numpy as np
from PIL import Image

from ssl_jax.view import video_stream
from ssl_jax.view.video_stream import StreamPictures

IMAGE, MASK = np.zeros((90, 120, 3), np.uint8), np.zeros((90, 120), np.uint8)


def test_film_and_strip_name_what_they_show(tmp_path):
  pictures = StreamPictures(3, 5)
  for moment in range(5):
    pictures.add(3, moment, IMAGE, MASK, [MASK, MASK])
    pictures.add(4, moment, IMAGE, MASK, [MASK, MASK])  # of another video
  pictures.write(tmp_path / "a")
  with Image.open(tmp_path / "a.gif") as film, Image.open(tmp_path / "a-strip.png") as strip:
    names = [np.asarray(picture.convert("L")) for picture in (strip, film)]
  side, top = video_stream._SIDE, video_stream._BAR
  assert names[0].shape == (3 * 180, 5 * 240 + side) and names[1].shape == (180 + top, 3 * 240)
  margin, line = names[0][:, :side], names[1][:top]
  for row in range(3):  # a name is dark on white, in every row and above every column
    for part in (margin[180 * row : 180 * (row + 1)], line[:, 240 * row : 240 * (row + 1)]):
      assert part.max() > 250 and 20 < (part < 100).sum() < 0.2 * part.size
      assert (part[:, -5:] > 250).all()  # and not cut off


def test_of_a_long_video_some_frames_are_kept(tmp_path):
  pictures = StreamPictures(0, 250)
  for moment in range(250):
    pictures.add(0, moment, IMAGE, MASK, [MASK, MASK])
  assert len(pictures.rows) == 84
