"""Unusual files are decoded to upright RGB; damaged ones raise DecodeError."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from ssl_jax.data import decode
from ssl_jax.data.decode import DecodeError

from .conftest import encoded, smooth

COLOUR = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def saved(image: Image.Image, kind: str, **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def on_white(colour, alpha):
  return np.round(colour * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_rgb_is_returned_as_it_is(kind):
  found = decode.decode(encoded(COLOUR, kind, **({"lossless": True} if kind == "WEBP" else {})))
  np.testing.assert_array_equal(found, COLOUR)
  assert found.dtype == np.uint8


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_is_close(options):
  picture = smooth(40, 56)
  found = decode.decode(encoded(picture, "JPEG", quality=95, **options))
  assert np.abs(found.astype(int) - picture).max() <= 8


def test_grey_and_black_and_white_become_three_equal_channels():
  np.testing.assert_array_equal(decode.decode(encoded(GREY)), np.stack([GREY] * 3, -1))
  bits = np.asarray(Image.fromarray(GREY > 99))
  found = decode.decode(saved(Image.fromarray(bits), "PNG"))
  np.testing.assert_array_equal(found, np.stack([bits * 255] * 3, -1))
  assert decode.decode(encoded(smooth(16, 24)[..., 0], "JPEG")).shape == (16, 24, 3)


def test_palette():
  image = Image.new("P", GREY.shape[::-1])
  image.putdata((GREY % 4).ravel().tolist())
  colours = np.array([[255, 0, 0], [0, 255, 0], [9, 8, 7], [1, 2, 250]], np.uint8)
  image.putpalette(colours.ravel().tolist())
  np.testing.assert_array_equal(decode.decode(saved(image, "PNG")), colours[GREY % 4])
  transparent = colours[GREY % 4].copy()
  transparent[GREY % 4 == 2] = 255
  np.testing.assert_array_equal(decode.decode(saved(image, "PNG", transparency=2)), transparent)
  alphas = np.array([255, 128, 0, 255], np.uint8)
  found = decode.decode(saved(image, "PNG", transparency=alphas.tobytes()))
  assert np.abs(found - on_white(colours[GREY % 4], alphas[GREY % 4])).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_laid_on_white(kind):
  alpha = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
  alpha[0], alpha[1] = 0, 255
  options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
  found = decode.decode(encoded(np.dstack([COLOUR, alpha]), kind, **options))
  assert np.abs(found - on_white(COLOUR, alpha)).max() <= 1
  assert (found[0] == 255).all() and (found[1] == COLOUR[1]).all()


def test_grey_with_alpha_and_transparent_colour():
  alpha = np.where(GREY > 128, 255, 0).astype(np.uint8)
  found = decode.decode(saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)]), "PNG"))
  np.testing.assert_array_equal(found[..., 1], np.where(alpha == 255, GREY, 255))
  data = saved(Image.fromarray(COLOUR), "PNG", transparency=tuple(int(v) for v in COLOUR[3, 3]))
  expected = COLOUR.copy()
  expected[3, 3] = 255
  np.testing.assert_array_equal(decode.decode(data), expected)


def test_cmyk():
  picture = smooth(32, 32)
  data = saved(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95)
  assert Image.open(io.BytesIO(data)).mode == "CMYK"
  assert np.abs(decode.decode(data).astype(int) - picture).max() <= 10


def test_sixteen_bits_keep_the_upper_eight():
  values = np.random.default_rng(2).integers(0, 2**16, (7, 5)).astype(np.uint16)
  data = saved(Image.fromarray(values), "PNG")
  assert data[24] == 16  # bit depth in the PNG header
  np.testing.assert_array_equal(decode.decode(data), np.stack([values >> 8] * 3, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation(kind, orientation):
  image, exif = Image.fromarray(smooth(24, 40)), Image.Exif()
  exif[0x0112] = orientation
  data = saved(image, kind, exif=exif)
  expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
  np.testing.assert_array_equal(decode.decode(data), expected)
  assert decode.open_image(data).size == expected.shape[1::-1]


def tiff(order: str, entries: list[tuple[int, int, int, int]]) -> bytes:
  head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
  body = b"".join(struct.pack(order + "HHIHH", *entry, 0) for entry in entries)
  return b"Exif\0\0" + head + body + bytes(4)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # as decode.py sets it
@pytest.mark.parametrize(
  "exif, turned",
  [
    (tiff("<", [(0x0100, 3, 1, 1), (0x0112, 3, 1, 6)]), True),
    (tiff(">", [(0x0112, 3, 1, 6)]), True),
    (tiff("<", [(0x0112, 3, 1, 99)]), False),
    (tiff("<", [(0x0112, 3, 1, 6)])[:-10], False),
    (b"Exif\0\0", False),
    (b"Exif\0\0II*\0\xff\xff\xff\x7f", False),
  ],
)
def test_exif_may_be_damaged(exif, turned):
  found = decode.decode(encoded(smooth(24, 40), "JPEG", exif=exif))
  assert found.shape == ((40, 24, 3) if turned else (24, 40, 3))


def test_several_pictures_in_one_file_give_the_first():
  first, second = smooth(48, 48), smooth(48, 48, phase=2.0)
  for kind, options in (("MPO", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})):
    more = [Image.fromarray(second)]
    data = saved(Image.fromarray(first), kind, save_all=True, append_images=more, **options)
    error = np.abs(decode.decode(data).astype(int) - first).mean()
    assert error < 4 < np.abs(second.astype(int) - first).mean()


@pytest.mark.parametrize(
  "kind, options",
  [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True})],
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_file(kind, options, share):
  data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), kind, **options)
  with pytest.raises(DecodeError):
    decode.decode(data[: int(share * len(data))])


def test_flipped_bits_in_a_png():
  data = bytearray(encoded(COLOUR))
  data[len(data) // 2] ^= 255
  with pytest.raises(DecodeError):
    decode.decode(bytes(data))


@pytest.mark.parametrize(
  "data, message",
  [
    (b"", "the file is empty"),
    (b"hello world", "not a PNG, JPEG or WebP"),
    (encoded(COLOUR, "GIF"), "starts with b'GIF8"),
    (b"\x89PNG\r\n\x1a\n" + bytes(40), "^the header of the image is damaged$"),
  ],
)
def test_no_image(data, message):
  with pytest.raises(DecodeError, match=message):
    decode.decode(data)


@pytest.mark.parametrize("late", [False, True])
def test_large_texts_and_profiles_in_a_png_are_skipped(late):
  """Pillow refuses more than 1 MB of text after decompression."""
  texts = PngImagePlugin.PngInfo()
  texts.add_text("note", "x" * 3_000_000, zip=True)
  texts.add_itxt("more", "y" * 3_000_000, zip=True)
  alpha = np.full(GREY.shape, 255, np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6
  image = Image.fromarray(np.dstack([COLOUR, alpha]))
  data = saved(image, "PNG", pnginfo=texts, icc_profile=bytes(5_000_000), exif=exif)
  plain = saved(image, "PNG", exif=exif)
  if late:  # texts may also follow the pixels
    start = data.index(b"zTXt") - 4
    stop = start + 12 + int.from_bytes(data[start : start + 4], "big")
    data = plain[:-12] + data[start:stop] + plain[-12:]
  assert len(data) > len(plain)
  np.testing.assert_array_equal(decode.decode(data), decode.decode(plain))
  assert decode.decode(data).shape == (13, 9, 3)
  mask = saved(Image.fromarray(GREY), "PNG", pnginfo=texts)
  np.testing.assert_array_equal(decode.decode_mask(mask), GREY)
  for share in (0.9, 0.99):
    with pytest.raises(DecodeError):
      decode.decode(mask[: int(share * len(mask))])


def test_damaged_chunks_beside_the_pixels_of_a_png_are_skipped():
  data = encoded(COLOUR)
  damaged = struct.pack(">I", 4) + b"gAMA" + bytes(4) + b"oops"
  np.testing.assert_array_equal(decode.decode(data[:33] + damaged + data[33:]), COLOUR)
  with pytest.raises(DecodeError):
    decode.decode(data[:33] + damaged.replace(b"gAMA", b"PLTE") + data[33:])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "I;16"])
def test_conversion_in_parts_changes_nothing(mode, monkeypatch):
  image = Image.fromarray(np.dstack([COLOUR, GREY]))
  image = Image.fromarray(GREY.astype(np.uint16) << 8) if mode == "I;16" else image.convert(mode)
  options = {"transparency": int(np.asarray(image)[2, 2])} if mode in ("P", "L", "I;16") else {}
  data = saved(image, "PNG", **options)
  whole = decode.decode(data)
  monkeypatch.setattr(decode, "_AT_ONCE", 30)
  np.testing.assert_array_equal(decode.decode(data), whole)


def test_decompression_bomb():
  data = bytearray(encoded(GREY))
  data[16:24] = struct.pack(">II", 20000, 20000)  # the header states 400 million pixels
  data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
  with pytest.raises(DecodeError):
    decode.decode(bytes(data))
  with pytest.raises(DecodeError, match="13x9 pixels, which is more than the limit of 100"):
    decode.decode(encoded(COLOUR), max_pixels=100)


@pytest.mark.parametrize("shrink, side", [(1, 200), (2, 100), (3, 100), (4, 50), (8, 25), (100, 25)])
def test_jpeg_decoded_smaller(shrink, side):
  picture = smooth(200, 400)
  found = decode.decode(encoded(picture, "JPEG", quality=95), shrink=shrink)
  assert found.shape == (side, 2 * side, 3)
  expected = Image.fromarray(picture).resize((2 * side, side), Image.Resampling.BOX)
  assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 2


def test_png_is_never_decoded_smaller():
  assert decode.decode(encoded(COLOUR), shrink=8).shape == COLOUR.shape


def test_shrink_of_a_turned_jpeg():
  exif = Image.Exif()
  exif[0x0112] = 6
  assert decode.decode(encoded(smooth(160, 400), "JPEG", exif=exif), shrink=2).shape == (200, 80, 3)
