"""Counts the bytes that a compiled program moves between a chip and its main memory, from its HLO text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from ssl_jax.planning.hlo import ITEM_BYTES, computations, run_times

NOTHING = {
  "parameter",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "constant",
  "iota",
  "after-all",
  "partition-id",
  "while",
  "conditional",
  "call",
}
SLICES = ("slice", "dynamic-slice", "gather")


class Leaf(NamedTuple):
  """One array of a shape."""

  size: int  # bytes
  main: bool  # whether it is in main memory; the compiler marks arrays in on-chip memory with S(1)


class Instruction(NamedTuple):
  """One instruction, a line of a computation."""

  leaves: tuple[Leaf, ...]
  op: str
  operands: tuple[str, ...]
  rest: str  # the text after the operands
  number: int  # index of a parameter; -1 for other instructions


Computation = dict[str, Instruction]  # by name; the last one is the result


def traffic(program: str) -> float:
  """Bytes read and written in main memory by one run of an optimised program on one chip.

  Each operation reads its operands and writes its results once; for a fusion, values passed between its
  instructions do not count. A slice reads only the slice, an in-place update writes only the update. Accesses
  to on-chip memory are free; a copy to or from it counts for the main memory once. XLA's own figure, "bytes
  accessed", also counts on-chip memory and reads sliced operands whole.
  """
  return sum(times * size for _, _, times, size in moved(program))


def moved(program: str) -> Iterator[tuple[str, Instruction, int, float]]:
  """(Name, instruction, how often it runs, bytes that it moves each time) of all instructions that run by
  themselves: those inside a fusion do not."""
  parts = computations(program)
  parsed = {name: dict(filter(None, map(_parse, lines[1:]))) for name, (_, lines) in parts.items()}
  # The computations inside fusions and the operators of reductions move nothing by themselves.
  inner = {
    _name(i.rest, "calls" if i.op == "fusion" else "to_apply")
    for part in parsed.values()
    for i in part.values()
    if i.op != "call"
  }
  for name, times in run_times(parts).items():
    if name not in inner:
      for own, instruction in parsed[name].items():
        yield own, instruction, times, _moved(instruction, parsed[name], parsed)


def _moved(instruction: Instruction, part: Computation, parsed: dict[str, Computation]) -> float:
  """Bytes that an instruction of a computation moves, without the computations that it calls."""
  leaves, op, operands, rest, _ = instruction
  read = [
    sum(leaf.size for leaf in part[name].leaves if leaf.main) if name in part else 0 for name in operands
  ]
  written = sum(leaf.size for leaf in leaves if leaf.main)
  if op in NOTHING or op.endswith("-done"):
    return 0
  if op == "fusion":
    inner = parsed[_name(rest, "calls")]
    return _written(inner, leaves) + sum(
      min(size, _read(inner, number, parsed)) for number, size in enumerate(read) if size
    )
  if op == "copy-start":  # (destination, source, context)
    return sum(leaf.size for leaf in leaves[:2] if leaf.main)
  if op == "slice-start":  # ((source), destination, context)
    return leaves[1].size * (bool(read[0]) + leaves[1].main)
  if op in SLICES:
    return written + (sum(leaf.size for leaf in leaves) if read[0] else 0)
  if op == "dynamic-update-slice":
    return 2 * read[1]
  if op.endswith("-start"):  # an asynchronous collective; its shape includes operands and results
    return written
  return written + sum(read)


def _read(part: Computation, number: int, parsed: dict[str, Computation]) -> float:
  """Bytes that a fusion reads of its operand `number`: infinity (all of it), unless it only takes slices."""
  mine = next((name for name, i in part.items() if i.op == "parameter" and i.number == number), None)
  total = 0.0
  for leaves, op, operands, rest, _ in part.values():
    if mine not in operands:
      continue
    if op in SLICES and operands[0] == mine:
      total += sum(leaf.size for leaf in leaves)
    elif op == "fusion":
      total += sum(
        _read(parsed[_name(rest, "calls")], place, parsed)
        for place, name in enumerate(operands)
        if name == mine
      )
    elif not (op == "dynamic-update-slice" and operands[0] == mine):
      return math.inf
  return total


def _written(part: Computation, leaves: tuple[Leaf, ...]) -> int:
  """Bytes that a fusion writes to its results; of a result that is updated in place only the update."""
  root = list(part.values())[-1]
  results = [part[name] for name in root.operands] if root.op == "tuple" else [root]
  total = 0
  for result, leaf in zip(results, leaves):
    while result.op == "bitcast" and result.operands[0] in part:
      result = part[result.operands[0]]
    update = part.get(result.operands[1]) if result.op == "dynamic-update-slice" else None
    total += (sum(part.size for part in update.leaves) if update else leaf.size) * leaf.main
  return total


def _parse(line: str) -> tuple[str, Instruction] | None:
  head = re.match(r"\s+(?:ROOT )?%([\w.\-]+) = ", line)
  if not head:
    return None
  rest = line[head.end() :]
  end = _closing(rest, 1) + 1 if rest.startswith("(") else rest.index(" ")
  shape, (op, _, rest) = rest[:end], rest[end + 1 :].partition("(")
  end = _closing(rest)
  number = int(rest[:end]) if op == "parameter" else -1
  return head[1], Instruction(
    _leaves(shape), op, tuple(re.findall(r"%([\w.\-]+)", rest[:end])), rest[end + 1 :], number
  )


def _closing(text: str, start: int = 0) -> int:
  """Index of the ")" that closes the parenthesis which is open at `start`."""
  depth = 1
  for place in range(start, len(text)):
    depth += {"(": 1, ")": -1}.get(text[place], 0)
    if not depth:
      return place
  return len(text)


def _leaves(shape: str) -> tuple[Leaf, ...]:
  found = re.findall(r"(\w+)\[([\d,]*)\](?:\{([^{}]*)\})?", shape)
  return tuple(
    Leaf(
      ITEM_BYTES[kind] * math.prod(map(int, filter(None, dims.split(",")))),
      not re.search(r"S\([1-9]", layout),
    )
    for kind, dims, layout in found
    if kind in ITEM_BYTES
  )


def _name(rest: str, what: str) -> str:
  found = re.search(rf"{what}=%?([\w.\-]+)", rest)
  return found[1] if found else ""
