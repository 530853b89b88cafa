"""Decodes image files into upright RGB images.

This is the only module that handles grey, palette, CMYK and 16-bit images, transparency and EXIF rotation.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401  each registers its format

MAX_PIXELS = 89_478_485  # 256 MiB of RGB; if the header states more, nothing is allocated

# Pillow reads EXIF when it opens a JPEG, and would warn about some photographs of ImageNet in every epoch.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
_AT_ONCE = 2**22  # pixels that are converted to RGB at once
_PNG_BITS = 24  # position of the number of bits of a sample
_NEEDED = (b"tRNS", b"eXIf")  # chunks of a PNG: transparency and rotation
_ORIENTATION = 0x0112
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


class DecodeError(ValueError):
  """The data is not an image that can be decoded completely."""


class Opened(NamedTuple):
  """An image of which only the header has been read."""

  image: Image.Image  # as stored
  orientation: int  # EXIF: 1 is upright, 5 to 8 swap width and height
  size: tuple[int, int]  # (width, height) of the upright image at full resolution


def decode(data: bytes, *, shrink: int = 1, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Decodes a PNG, JPEG or WebP file.

  Grey, palette and CMYK images are converted to RGB. Of 16-bit values the upper 8 bits are kept. Of an
  animation the first frame is returned. Transparent pixels are blended with a white background, as a viewer
  would show them: dropping the alpha channel instead would uncover colours that were not meant to be visible.
  EXIF rotation is applied. Colour profiles are ignored, as in torchvision and TFDS.

  Args:
    shrink: allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its sides, but not below 1/shrink. This is much
      faster, because the inverse DCT is computed at the reduced size. Other formats ignore it.
    max_pixels: larger images are refused (decompression bombs).
  Returns: uint8[H, W, 3].
  Raises: DecodeError for anything that is not a complete image in one of the three formats.
  """
  return to_array(load(open_image(data, max_pixels=max_pixels), shrink=shrink))


def open_image(image: bytes | np.ndarray, *, max_pixels: int = MAX_PIXELS) -> Opened:
  """Reads the header of an encoded image, or wraps decoded pixels uint8[H, W, 3].

  Raises: DecodeError for data that is not an image, or an image of more than `max_pixels`.
  """
  if isinstance(image, np.ndarray):
    return Opened(Image.fromarray(image), 1, image.shape[1::-1])
  try:
    kind = _format(image)
    opened = Image.open(io.BytesIO(_pixels_only(image) if kind == "PNG" else image), formats=[kind])
    width, height = opened.size
    orientation = _orientation(opened.info.get("exif", b""))
  except MemoryError:
    raise
  except Exception as error:  # Pillow raises a dozen kinds of exceptions for damaged files, also warnings
    raise _explain(error) from error
  if width * height > max_pixels:
    raise DecodeError(f"the image has {width}x{height} pixels, which is more than the limit of {max_pixels}")
  return Opened(opened, orientation, (height, width) if orientation >= 5 else (width, height))


def load(opened: Opened, *, shrink: int = 1) -> Image.Image:
  """Decodes an image that `open_image` opened into an upright RGB image; `shrink` as in `decode`.

  Raises: DecodeError if the data is damaged.
  """
  image, orientation, _ = opened
  try:
    if shrink > 1 and image.format in ("JPEG", "MPO"):
      image.draft(None, (max(image.width // shrink, 1), max(image.height // shrink, 1)))
    image.load()
    upright = _UPRIGHT.get(orientation)
    return _to_rgb(image) if upright is None else _to_rgb(image).transpose(upright)
  except MemoryError:
    raise
  except Exception as error:
    raise _explain(error) from error


def to_array(image: Image.Image) -> np.ndarray:
  """Converts an RGB image to uint8[H, W, 3]; faster than Pillow's array interface for small images."""
  return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


def from_pillow(image: Image.Image) -> np.ndarray:
  """Converts an image that Pillow opened to upright pixels uint8[H, W, 3], as `decode` does a file.

  Raises: DecodeError if its file is damaged.
  """
  return to_array(load(Opened(image, _orientation(image.info.get("exif", b"")), image.size)))


def decode_mask(mask: bytes | np.ndarray, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Decodes a segmentation mask into the class of each pixel.

  Args:
    mask: an encoded PNG with one channel or a palette, whose values or palette indices are the classes, as
      they are stored in 1, 2, 4 or 8 bits, or the decoded classes uint8[H, W].
  Returns: uint8[H, W].
  Raises: DecodeError for anything that is not a complete image with one channel of 8 bits or a palette.
  """
  if isinstance(mask, np.ndarray):
    return mask
  image = open_image(mask, max_pixels=max_pixels).image
  if image.mode not in ("P", "L", "1"):
    raise DecodeError(f"a mask must have one channel of 8 bits or a palette, but its mode is {image.mode!r}")
  try:
    image.load()
  except MemoryError:
    raise
  except Exception as error:
    raise _explain(error) from error
  found = np.asarray(image).astype(np.uint8)
  if image.mode == "L" and image.format == "PNG" and mask[_PNG_BITS] in (2, 4):
    found //= 255 // (2 ** mask[_PNG_BITS] - 1)  # Pillow spreads the grey levels of few bits over 0 to 255
  return found


def _format(data: bytes) -> str:
  for signature, name in _SIGNATURES.items():
    if data.startswith(signature):
      return name
  if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
    return "WEBP"
  raise DecodeError(
    "the file is empty" if not data else f"not a PNG, JPEG or WebP file: it starts with {bytes(data[:8])!r}"
  )


def _pixels_only(png: bytes) -> bytes:
  """Drops the chunks of a PNG that its first image does not need, such as texts and colour profiles.

  Pillow refuses the whole image if such a chunk is large or damaged, but viewers show it.
  """
  kept, start, dropped = [png[:8]], 8, False
  while start + 12 <= len(png):
    name, end = png[start + 4 : start + 8], start + 12 + int.from_bytes(png[start : start + 4], "big")
    if name[:1].isupper() or name in _NEEDED or end > len(png):  # upper case: critical
      kept.append(png[start:end])
    else:
      dropped = True
    start = end
  return b"".join([*kept, png[start:]]) if dropped else png


def _explain(error: Exception) -> DecodeError:
  if isinstance(error, PIL.UnidentifiedImageError):  # its message names an object in memory
    return DecodeError("the header of the image is damaged")
  return error if isinstance(error, DecodeError) else DecodeError(str(error) or type(error).__name__)


def _to_rgb(image: Image.Image) -> Image.Image:
  if image.mode == "RGB" and "transparency" not in image.info:
    return image
  rows = max(_AT_ONCE // max(image.width, 1), 1)
  if rows >= image.height:
    return _converted(image)
  found = Image.new("RGB", image.size)
  for top in range(0, image.height, rows):  # to save memory: most conversions make several copies
    found.paste(_converted(image.crop((0, top, image.width, min(top + rows, image.height)))), (0, top))
  return found


def _converted(image: Image.Image) -> Image.Image:
  if image.mode.startswith(("I", "F")):
    return _from_16_bits(image)
  if image.has_transparency_data:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
  return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
  values = np.asarray(image).astype(np.int32)
  grey = np.clip(values >> 8, 0, 255).astype(np.uint8)
  if "transparency" in image.info:
    grey[values == image.info["transparency"]] = 255
  return Image.fromarray(grey).convert("RGB")


def _orientation(exif: bytes) -> int:
  """Reads the orientation tag of an EXIF block; returns 1 (upright) if the tag is absent or invalid.

  Pillow's own reader is not used: it parses all tags and warns about each damaged one, even where the image
  itself is intact.
  """
  tiff = exif.removeprefix(b"Exif\x00\x00")
  order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
  if order is None:
    return 1
  try:
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
      tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
      if tag == _ORIENTATION:
        return value if 1 <= value <= 8 else 1
  except struct.error:
    pass
  return 1
