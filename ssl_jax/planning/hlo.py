"""The cost of a compiled program, read from its HLO text."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax

# XLA's cost analysis; the public API of jax offers it only for whole programs. Neither module has types.
from jaxlib import _hlo, _jax  # pyright: ignore[reportAttributeAccessIssue]

ITEM_BYTES = {
  "pred": 1,
  "s8": 1,
  "u8": 1,
  "bf16": 2,
  "f16": 2,
  "s16": 2,
  "u16": 2,
  "f32": 4,
  "s32": 4,
  "u32": 4,
  "f64": 8,
  "s64": 8,
  "u64": 8,
}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Cost(NamedTuple):
  """The cost of one run of a program on one chip."""

  flops: float
  accessed: float  # bytes that its operations read and write in any memory; see traffic.py for main memory

  def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
    return Cost(self.flops + other.flops, self.accessed + other.accessed)

  def __mul__(self, times: float) -> Cost:  # type: ignore[override]
    return Cost(self.flops * times, self.accessed * times)


def cost(program: str) -> Cost:
  """The cost of an optimised program, in which the body of a loop counts once per iteration.

  XLA's analysis counts the body of a loop once, however often it runs: layers under a scan, gradient
  accumulation, steps of test-time training. Here each body is also analysed separately and multiplied by the
  loop's trip count in the text. A loop whose trip count is not in the text counts once.
  """
  parts = computations(program)
  calls, once = _calls(parts), analysis(parts)

  @functools.cache
  def whole(name: str) -> Cost:
    total = once(name)
    for body, trips in _loops(calls, name):
      total += whole(body) * trips + once(body) * -1
    return total

  return whole(next(name for name, (entry, _) in parts.items() if entry))


def analysis(parts: dict[str, tuple[bool, list[str]]]) -> Callable[[str], Cost]:
  """The cost of one run of a computation, by its name; XLA's analysis counts bodies of loops once."""

  @functools.cache
  def once(name: str) -> Cost:
    found = _jax.hlo_module_cost_analysis(
      jax.devices("cpu")[0].client, _hlo.hlo_module_from_text(_as_entry(parts, name))
    )
    return Cost(found.get("flops", 0.0), found.get("bytes accessed", 0.0))

  return once


def collectives(program: str) -> dict[str, dict[str, int]]:
  """The number of collectives and the bytes of their results on one chip, by kind.

  A collective in a loop counts once per iteration. The compiler may split a collective into pieces that it
  fuses with computation; the pieces have the same channel and count once together. Over several slices an
  all-reduce becomes a reduce-scatter in each slice, an exchange of the parts "between-slices", of which the
  bytes are those that one chip sends, and an all-gather in each slice.
  """
  parts, found, seen = computations(program), {}, set()
  for name, times in run_times(parts).items():
    for shapes, kind, start, rest in re.findall(
      rf"= (.+?) ({'|'.join((*COLLECTIVES, 'send'))})(-start)?\((.*)", "\n".join(parts[name][1])
    ):
      if kind == "send" and "megascale" not in rest:  # a transfer to the host
        continue
      channel = re.search(r"channel_id=(\d+)", rest)
      if channel and (kind, channel[1]) in seen:
        continue
      seen |= {(kind, channel[1])} if channel else set()
      sizes = [
        ITEM_BYTES.get(dtype, 4) * math.prod(map(int, filter(None, dims.split(","))))
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
      ]
      # The shape of a "-start" includes its operand, that of a "send" a context.
      size = max(sizes, default=0) if start or kind == "send" else sum(sizes)
      row = found.setdefault("between-slices" if kind == "send" else kind, {"count": 0, "bytes": 0})
      row["count"], row["bytes"] = row["count"] + times, row["bytes"] + times * size
  return found


def computations(program: str) -> dict[str, tuple[bool, list[str]]]:
  """{name of a computation: (whether it is the entry, its lines)}, callees before callers, as in the text."""
  found, name = {}, ""
  for line in program.splitlines():
    head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
    if head:
      name = head[2]
      found[name] = bool(head[1]), [line.removeprefix("ENTRY ")]
    elif name:
      found[name][1].append(re.sub(r", metadata=\{[^{}]*\}", "", line))
      name = "" if line == "}" else name
  return found


def _as_entry(parts: dict[str, tuple[bool, list[str]]], name: str) -> str:
  """The text of a program whose entry is the given computation."""
  needed = _called(parts, name)
  texts = ["\n".join(lines) for other, (_, lines) in parts.items() if other in needed and other != name]
  return "HloModule part\n\n" + "\n\n".join([*texts, "ENTRY " + "\n".join(parts[name][1])])


def _called(parts, name: str) -> set[str]:
  """The computation itself and all that it calls, directly or indirectly."""
  found, waiting = set(), [name]
  while waiting:
    here = waiting.pop()
    if here not in found:
      found.add(here)
      waiting += [
        word for line in parts[here][1][1:] for word in re.findall(r"%([\w.\-]+)", line) if word in parts
      ]
  return found


def run_times(parts: dict[str, tuple[bool, list[str]]]) -> dict[str, int]:
  """How many times each computation runs in one run of the program; only those that run at all."""
  calls = _calls(parts)
  found = {name: 1 for name, (entry, _) in parts.items() if entry}
  for name in reversed(parts):  # callers come after their callees in the text
    for other, trips in calls[name] if name in found else ():
      found[other] = found.get(other, 0) + found[name] * (trips or 1)
  return found


def _calls(parts) -> dict[str, list[tuple[str, int]]]:
  """For each computation its callees: (name, trip count if it is the body of a loop, else 0)."""
  found = {}
  for name, (_, lines) in parts.items():
    found[name] = []
    for line in lines[1:]:
      loop = re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line)
      if loop:
        found[name].append((loop[2], _trips(parts, loop[1], line)))
      elif "=%" in line or "={%" in line:  # these are followed by names of computations
        found[name] += [
          (word, 0) for word in re.findall(r"%([\w.\-]+)", line.split("), ", 1)[-1]) if word in parts
        ]
  return found


def _loops(calls, name: str) -> list[tuple[str, int]]:
  """(body, trip count) of the loops in a computation and its callees, without loops inside those bodies."""
  found, waiting = [], [name]
  while waiting:
    for other, trips in calls[waiting.pop()]:
      if trips:
        found.append((other, trips))
      else:
        waiting.append(other)
  return found


def _trips(parts, condition: str, line: str) -> int:
  """The trip count of a loop: noted by the compiler, or else the bound of jax's counter, which starts at 0.

  It is 1 if neither is known.
  """
  noted = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', line)
  bounds = re.findall(r" constant\((\d+)\)", "\n".join(parts[condition][1]))
  return int(noted[1]) if noted else int(bounds[0]) if len(bounds) == 1 else 1
