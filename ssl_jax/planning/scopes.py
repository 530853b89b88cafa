"""Which part of a compiled program its named scopes take, from its HLO text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ssl_jax.planning import hlo
from ssl_jax.planning.chips import Chip
from ssl_jax.planning.traffic import moved


class Part(NamedTuple):
  """What a part of a program takes of one run on one chip."""

  flops: float
  hbm_bytes: float
  seconds: float  # the sum of the lower bounds of its instructions, each by FLOPs or by traffic
  instructions: int  # that the chip starts one after the other; loops count each iteration
  largest: int = 0  # bytes of its largest array in main memory

  def __add__(self, other: Part) -> Part:  # type: ignore[override]
    return Part(
      self.flops + other.flops,
      self.hbm_bytes + other.hbm_bytes,
      self.seconds + other.seconds,
      self.instructions + other.instructions,
      max(self.largest, other.largest),
    )


def parts(program: str, scopes: Sequence[str], chip: Chip) -> dict[str, Part]:
  """The parts of an optimised program that lie in `jax.named_scope`s, and "all" of it.

  Scopes may lie in each other: an instruction counts in each scope that its name holds. Gradients count in
  the scope of their operation. What the compiler inserts without a name, such as a copy to on-chip memory,
  counts where it is used. A loop whose trip count is not in the text counts once. FLOPs are those of fusions,
  in which TPU programs have all their products.
  """
  names = _scoped_names(program)
  once = hlo.analysis(hlo.computations(program))
  found = dict.fromkeys(("all", *scopes), Part(0.0, 0.0, 0.0, 0))
  for name, instruction, times, size in moved(program):
    called = re.search(r"calls=%?([\w.\-]+)", instruction.rest) if instruction.op == "fusion" else None
    work = once(called[1]).flops if called else 0.0
    runs = bool(size or work) and not instruction.op.endswith(("-start", "-done"))
    seconds = max(work / chip.flops, size / chip.bandwidth)
    largest = max((leaf.size for leaf in instruction.leaves if leaf.main and size), default=0)
    part = Part(times * work, times * size, times * seconds, times * runs, largest)
    for scope in found:
      if scope == "all" or re.search(rf"\b{scope}\b", names.get(name, "")):
        found[scope] += part
  return found


def _scoped_names(program: str) -> dict[str, str]:
  """The path of named scopes of each instruction; that of its first user if it has none of its own."""
  found, user = {}, {}
  for line in program.splitlines():
    head = re.match(r"\s+(?:ROOT )?%([\w.\-]+) = ", line)
    if head:
      own = re.search(r'op_name="([^"]*)"', line)
      found[head[1]] = own[1] if own else ""
      for operand in re.findall(r"%([\w.\-]+)", line[head.end() :].split("), ")[0]):
        user.setdefault(operand, head[1])
  # Users come after what they use, so theirs is known first in reverse order.
  for name in reversed(found):
    if not found[name] and name in user:
      found[name] = found.get(user[name], "")
  return found
