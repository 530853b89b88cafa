"""The random crops of the two observations of a transition."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ssl_jax.augment.crops import to_float
from ssl_jax.augment.record_draws import RecordAugment, check
from ssl_jax.core import Key

BEFORE, AFTER = "observation", "next_observation"


def transition_crop(*, size: int = 84) -> RecordAugment:
  """Cuts a window of `size` pixels out of each of the two observations, at places drawn independently.

  The record's "clip" uint8[n + 1, H, W, 3] becomes "observation" and "next_observation", each f32[size, size,
  3 n] in [0, 1], the frames of an observation behind each other in the channels, oldest first; and "offsets"
  i32[2, 2], the (top, left) of both windows. Offsets are at most one less than the room, if there is any, as
  in the released code.

  Raises: ValueError for a size that is not positive. The augmentation raises it when it is traced, for a
    record without a clip, or with one of smaller frames.
  Source: Hansen et al. 2021, released code (random_crop).
  """
  check(size, 0.0)

  def augment(key: Key, record: dict[str, jax.Array]) -> dict[str, jax.Array]:
    if "clip" not in record:
      raise ValueError(
        f"config.augment.name is 'transition_crop', which needs a 'clip', but the record has only "
        f"{', '.join(sorted(record))}; use config.host.name='transition'"
      )
    clip = record["clip"]
    room = [side - size for side in clip.shape[1:3]]
    if min(room) < 0:
      raise ValueError(
        f"config.augment.size is {size}, but the frames have {clip.shape[1]} x {clip.shape[2]} pixels; use "
        "a smaller crop, or a larger config.data.size"
      )
    offsets = jnp.stack(
      [
        jax.random.randint(jax.random.fold_in(key, axis), (2,), 0, max(most, 1))
        for axis, most in enumerate(room)
      ],
      1,
    )
    rest = {name: leaf for name, leaf in record.items() if name != "clip"}
    views = {
      name: jax.lax.dynamic_slice(frames, (*offset, 0), (size, size, frames.shape[-1]))
      for name, frames, offset in zip((BEFORE, AFTER), observations(to_float(clip)), offsets)
    }
    return {**rest, **views, "offsets": offsets}

  return augment


def observations(clip: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(f32[..., H, W, 3 n], the same): the observations before and after, of clips f32[..., n + 1, H, W, 3]."""
  return stacked(clip[..., :-1, :, :, :]), stacked(clip[..., 1:, :, :, :])


def stacked(frames: jax.Array) -> jax.Array:
  """Frames f32[..., n, H, W, 3] as one observation f32[..., H, W, 3 n], oldest first."""
  moved = jnp.moveaxis(frames, -4, -2)
  return moved.reshape(*moved.shape[:-2], -1)
