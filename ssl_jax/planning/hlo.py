"""What a compiled program's text says of its cost."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

import jax
from jaxlib import _hlo, _jax  # the compiler's own analysis; jax offers it for whole programs only

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
  """Of one run of a program on one chip."""

  flops: float
  accessed: (
    float  # bytes that its operations read and write, in whichever memory; see traffic.py for the main one
  )

  def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
    return Cost(self.flops + other.flops, self.accessed + other.accessed)

  def __mul__(self, times: float) -> Cost:  # type: ignore[override]
    return Cost(self.flops * times, self.accessed * times)


def cost(program: str) -> Cost:
  """Of an optimised program, in which what is repeated counts as often as it runs.

  XLA's analysis counts the body of a loop once, however often it runs: layers under a scan, parts of a batch, steps at test time. Here
  each body is analysed by itself as well and counted with the trips that the text tells. A loop whose number it does not tell counts once.
  """
  parts = computations(program)
  calls = _calls(parts)

  @functools.cache
  def once(name: str) -> Cost:
    found = _jax.hlo_module_cost_analysis(
      jax.devices("cpu")[0].client, _hlo.hlo_module_from_text(_as_entry(parts, name))
    )
    return Cost(found.get("flops", 0.0), found.get("bytes accessed", 0.0))

  @functools.cache
  def whole(name: str) -> Cost:
    total = once(name)
    for body, trips in _loops(calls, name):
      total += whole(body) * trips + once(body) * -1
    return total

  return whole(next(name for name, (entry, _) in parts.items() if entry))


def collectives(program: str) -> dict[str, dict[str, int]]:
  """By kind, how many run and the bytes of their results on a chip; one in a loop counts as often as it runs.

  The pieces into which the compiler fuses one with computation share its channel and count once.
  """
  parts, found, channels = computations(program), {}, set()
  for name, times in run_times(parts).items():
    for shapes, kind, start, rest in re.findall(
      rf"= (.+?) ({'|'.join(COLLECTIVES)})(-start)?\((.*)", "\n".join(parts[name][1])
    ):
      channel = re.search(r"channel_id=(\d+)", rest)
      if channel and channel[1] in channels:
        continue
      channels |= {channel[1]} if channel else set()
      sizes = [
        ITEM_BYTES.get(dtype, 4) * math.prod(map(int, filter(None, dims.split(","))))
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
      ]
      size = max(sizes, default=0) if start else sum(sizes)  # an asynchronous one names its operand as well
      row = found.setdefault(kind, {"count": 0, "bytes": 0})
      row["count"], row["bytes"] = row["count"] + times, row["bytes"] + times * size
  return found


def computations(program: str) -> dict[str, tuple[bool, list[str]]]:
  """{name: (whether the program begins there, its lines)}, in the order of the text: what is called stands before who calls it."""
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
  """A program that begins with the computation."""
  needed = _called(parts, name)
  texts = ["\n".join(lines) for other, (_, lines) in parts.items() if other in needed and other != name]
  return "HloModule part\n\n" + "\n\n".join([*texts, "ENTRY " + "\n".join(parts[name][1])])


def _called(parts, name: str) -> set[str]:
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
  """How often each computation that the program reaches runs."""
  calls = _calls(parts)
  found = {name: 1 for name, (entry, _) in parts.items() if entry}
  for name in reversed(parts):  # who calls stands behind what it calls
    for other, trips in calls[name] if name in found else ():
      found[other] = found.get(other, 0) + found[name] * (trips or 1)
  return found


def _calls(parts) -> dict[str, list[tuple[str, int]]]:
  """By computation: (another that it runs, how often if in a loop, 0: once, not in a loop)."""
  found = {}
  for name, (_, lines) in parts.items():
    found[name] = []
    for line in lines[1:]:
      loop = re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line)
      if loop:
        found[name].append((loop[2], _trips(parts, loop[1], line)))
      elif "=%" in line or "={%" in line:  # names of computations follow these
        found[name] += [
          (word, 0) for word in re.findall(r"%([\w.\-]+)", line.split("), ", 1)[-1]) if word in parts
        ]
  return found


def _loops(calls, name: str) -> list[tuple[str, int]]:
  """(Body, trips) of the loops of a computation and of those that it calls, without those inside the bodies."""
  found, waiting = [], [name]
  while waiting:
    for other, trips in calls[waiting.pop()]:
      if trips:
        found.append((other, trips))
      else:
        waiting.append(other)
  return found


def _trips(parts, condition: str, line: str) -> int:
  """How often a loop runs: what the compiler noted, or the number that jax's counter, which begins with 0, must stay below."""
  noted = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', line)
  bounds = re.findall(r" constant\((\d+)\)", "\n".join(parts[condition][1]))
  return int(noted[1]) if noted else int(bounds[0]) if len(bounds) == 1 else 1
