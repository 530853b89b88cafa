"""The rules of the architecture, read from the syntax trees: no cycle; one owner of devices, linen, Orbax."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, group_of

PACKAGE = REPOSITORY / "ssl_jax"
LONGEST = 50  # lines of code of a function, without its docstring


@functools.cache
def modules() -> dict[str, ast.Module]:
  """The syntax tree of every module, by its full name."""
  found = {}
  for path in sorted(PACKAGE.rglob("*.py")):
    name = path.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    found[name] = ast.parse(path.read_text(encoding="utf-8"))
  return found


def imported(tree: ast.AST) -> set[str]:
  """Full names of modules and of names in modules that are imported anywhere in a tree."""
  found = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, "imports are absolute"
      for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        found |= {whole} if whole in modules() else {node.module, whole}
  return found


@functools.cache
def edges() -> dict[str, set[str]]:
  """The modules of the package that each module imports; a package is imported with what lies in it."""
  known = modules()
  return {
    name: {other for other in imported(tree) if other in known and other != name}
    for name, tree in known.items()
  }


def cycle(graph: dict[str, set[str]]) -> list[str]:
  """A cycle of the graph, [] if there is none."""
  done, path = set(), []

  def visit(name: str) -> list[str]:
    if name in path:
      return [*path[path.index(name) :], name]
    if name in done:
      return []
    path.append(name)
    for other in sorted(graph[name]):
      if found := visit(other):
        return found
    path.pop()
    done.add(name)
    return []

  for name in graph:
    if found := visit(name):
      return found
  return []


def users(word: str) -> list[str]:
  """Modules that import what is called so, or something in it."""
  return [
    name for name, tree in modules().items() if any(f"{i}.".startswith(f"{word}.") for i in imported(tree))
  ]


def test_a_cycle_is_found():
  assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
  assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_through_others():
  assert not cycle(edges()), " -> ".join(cycle(edges()))


def inside(names: list[str], *folders: str) -> bool:
  return bool(names) and all(
    f"{name}.".startswith(tuple(f"ssl_jax.{folder}." for folder in folders)) for name in names
  )


def test_only_parallel_builds_shardings():
  for word in ("NamedSharding", "PartitionSpec", "AxisType"):
    assert inside(users(f"jax.sharding.{word}"), "parallel"), users(f"jax.sharding.{word}")
  for name, tree in modules().items():
    uses = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    if not inside([name], "parallel"):
      assert not uses & {"shard_map", "pmap", "make_mesh"} or "parallel" in ast.unparse(tree), name


def test_only_models_import_linen():
  assert inside(users("flax.linen"), "models")


def test_only_checkpoint_imports_orbax():
  assert inside(users("orbax"), "run.checkpoint")


def test_methods_know_no_devices():
  methods = [name for name in modules() if name.startswith("ssl_jax.methods.")]
  assert len(methods) > 10 and not set(methods) & set(users("jax.sharding"))


def test_the_host_imports_no_jax():
  """Worker processes start fast. (Grain, which pipeline.py needs, imports jax by itself.)"""
  program = "import sys; from ssl_jax.data import load, sources; assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def test_importing_the_package_is_immediate():
  program = "import sys, ssl_jax; assert not {'jax', 'numpy', 'flax'} & set(sys.modules); ssl_jax.__version__"
  subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def test_public_names_are_there():
  import ssl_jax

  for name in ssl_jax.__all__:
    assert getattr(ssl_jax, name) is not None and name in dir(ssl_jax)
  with pytest.raises(AttributeError, match="no attribute 'trian'; its public names are"):
    ssl_jax.trian  # noqa: B018


def functions():
  for name, tree in modules().items():
    for node in ast.walk(tree):
      if isinstance(node, ast.FunctionDef):
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        yield name, node.name, (node.end_lineno - body[0].lineno + 1) if body else 0


def test_functions_fit_on_one_screen():
  long = [f"{module}.{name}: {lines}" for module, name, lines in functions() if lines > LONGEST]
  assert not long, long


def test_files_are_text_of_the_project():
  """No path of a machine, no unfinished work."""
  home = str(pathlib.Path.home())
  for path in [*PACKAGE.rglob("*.py"), *(REPOSITORY / "configs").rglob("*.py")]:
    text = path.read_text(encoding="utf-8")
    for word in (f"{home}/", "NotImplementedError", "TO" + "DO", "FIX" + "ME"):
      assert word not in text, f"{path}: {word}"


def test_tests_that_share_programs_are_of_one_group():
  """Of a module, and in the conformance suite of a method, wherever its name stands among the parameters."""
  suite = "tests/test_methods.py"
  groups = [group_of(f"{suite}::{test}") for test in ("a[moco]", "b[2-moco]", "c[moco-True]")]
  assert len(set(groups)) == 1 and groups[0] != group_of(f"{suite}::a[mae]") != group_of(f"{suite}::plain")
  assert group_of("tests/run/test_train.py::a[moco]") == group_of("tests/run/test_train.py::b")
