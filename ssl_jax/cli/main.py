"""Entry point of the command line: `ssl-jax COMMAND --flags`, or `python -m ssl_jax COMMAND --flags`."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import sys
import textwrap

import absl.logging
from absl import flags

from ssl_jax.cli import images, pictures, preparation, runs, weights
from ssl_jax.cli.compiled_programs import keep_compiled_programs
from ssl_jax.cli.flags import Command, Flag, exit_with, parse
from ssl_jax.cli.huge_pages import restart_with_huge_pages
from ssl_jax.config.checked import nearest
from ssl_jax.log.output import continue_if_closed
from ssl_jax.log.waiting import notice

_ALL: dict[str, Command] = {
  **preparation.COMMANDS,
  **runs.COMMANDS,
  **images.COMMANDS,
  **pictures.COMMANDS,
  **weights.COMMANDS,
}
_ORDER = ("recipes", "describe", "train", "evaluate", "embed", "predict", "study", "plan", "prepare")
_ORDER += ("report", "import", "export", "watch", "show")
COMMANDS = {name: _ALL[name] for name in _ORDER}
# Commands whose work is in files, and that say so if nobody reads their output any more.
IN_FILES = ("train", "evaluate", "embed", "predict", "study", "prepare", "import")
COMPILING = ("train", "evaluate", "embed", "predict", "study", "prepare", "report", "show", "export")
PROGRAMS = "compiled-programs"  # the option of all of these
WIDTH = 110  # of help texts, columns


def main() -> None:
  """Runs the command that the first argument names; the other arguments are its flags.

  The process exits with status 0 on success, 1 on an error, 2 if the command line is wrong, 75 if it was
  asked to stop and has saved its work (the same command resumes it), and 130 if it was interrupted.
  If the reader of its output goes, as in `ssl-jax train | head`, the command continues without printing.
  """
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(AttributeError, OSError):  # names of classes or files may not fit its encoding
      stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
  words = [_expanded(word) for word in sys.argv[1:]]
  notice = "ssl-jax: nobody reads the output any more; the command continues without printing"
  with continue_if_closed(notice if words and words[0] in IN_FILES else ""):
    _main(words)


def _main(words: list[str]) -> None:
  if not words or words[0] in ("-h", "--help", "help"):
    print(_overview())
    sys.exit(0 if words else 2)
  name, *words = words
  chosen, words = _without_option(words, PROGRAMS)
  if name not in COMMANDS:
    exit_with(f"there is no command {name!r}{nearest(name, COMMANDS)}", 2)
  if {"-h", "--help"} & set(words):
    print(_help(name))
    return
  restart_with_huge_pages()
  if name in COMPILING:  # before `parse`, because recipes import jax, which reads the environment
    if folder := keep_compiled_programs(chosen, os.environ):
      notice(f"compiled programs are kept in {folder} for the next start; --{PROGRAMS}=off keeps none")
    notice("loading JAX ...")
  values = parse(name, COMMANDS[name], words)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  flags.FLAGS(["ssl-jax"])  # marks absl's global flags as parsed, because libraries read them
  # Orbax logs every folder that it handles, and logs the errors that it also raises.
  absl.logging.set_verbosity(absl.logging.FATAL)
  # At exit, asyncio logs exceptions again that were raised and handled before.
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)
  _call(COMMANDS[name], values)


def _without_option(words: list[str], name: str) -> tuple[str, list[str]]:
  """Takes --NAME=VALUE out of the words: ("" or its last value, the other words)."""
  mine = [word for word in words if word.replace("_", "-").startswith(f"--{name}=")]
  return (mine[-1].partition("=")[2] if mine else ""), [word for word in words if word not in mine]


def _expanded(word: str) -> str:
  """Expands the "~" of "--flag=~/path", which shells leave as it is."""
  name, equals, value = word.partition("=")
  return f"{name}={os.path.expanduser(value)}" if equals and value.startswith("~") else word


def _call(command: Command, values) -> None:
  """Runs the command; turns an error into a message on stderr and an exit status."""
  from ssl_jax.run.stop import Stopped  # imported here because it imports jax, which would slow down --help

  try:
    command.run(values)
  except Stopped as stopped:
    exit_with(str(stopped), 75)
  except KeyboardInterrupt:
    exit_with("interrupted", 130)
  except Exception as error:
    if os.environ.get("SSL_JAX_TRACEBACK"):
      raise
    from ssl_jax import parallel

    # These types carry messages for users; any other is an oversight, whose type helps to find it.
    kind = "" if isinstance(error, (ValueError, OSError, RuntimeError)) else f"{type(error).__name__}: "
    message = "\n".join([f"{kind}{error}", *getattr(error, "__notes__", ())])
    exit_with(f"{parallel.whoami()}{message}\n(set SSL_JAX_TRACEBACK=1 to see the traceback)", 1)


def _overview() -> str:
  width = max(map(len, COMMANDS))
  lines = [f"  {name:{width}}  {_summary(command)}" for name, command in COMMANDS.items()]
  return "\n".join(
    [
      "ssl-jax: self-supervised visual representation learning in JAX.",
      "",
      "Usage: ssl-jax COMMAND [--FLAG=VALUE ...]",
      "",
      "Commands:",
      *lines,
      "",
      "Run `ssl-jax COMMAND --help` for the flags of a command and for examples.",
      "",
      f"--{PROGRAMS}=DIR keeps compiled programs in DIR, so that the next start does not compile them again;",
      f"without it in the user's cache (~/.cache/ssl_jax), with --{PROGRAMS}=off nowhere.",
    ]
  )


def _docstring(command: Command) -> str:
  return inspect.getdoc(command.run) or ""


def _summary(command: Command) -> str:
  """The first line of the docstring of the command's function."""
  return _docstring(command).partition("\n")[0]


def _help(name: str) -> str:
  """The docstring of the command's function, followed by the flags, whose descriptions form one column."""
  command = COMMANDS[name]
  lines = [_docstring(command)]
  if command.flags:
    lines += ["", "Flags:"]
    width = max(len(spec.name) for spec in command.flags)
    for spec in command.flags:
      lines += textwrap.wrap(
        _describe(spec),
        WIDTH,
        initial_indent=f"  --{spec.name.replace('_', '-'):{width}}  ",
        subsequent_indent=" " * (width + 6),
        break_long_words=False,
        break_on_hyphens=False,
      )
  return "\n".join(lines)


def _describe(spec: Flag) -> str:
  """The help of a flag with its default; a default that is "", 0 or False is not mentioned."""
  if spec.default is None:
    return ("(required) " if spec.required else "") + spec.help
  if spec.default is True:
    return f"{spec.help} (on by default; --no{spec.name.replace('_', '-')} turns it off)"
  return spec.help + (f" (default: {spec.default})" if spec.default else "")
