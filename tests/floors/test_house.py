"""The shape of the house: imports go down only, there are no circles, and the pure half stays pure.

The table is the one of docs/architecture.md. Imports inside functions and under TYPE_CHECKING count like all others.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import openwork

ROOT = Path(openwork.__file__).parent
PURE = ("core", "kv", "decode", "schedule", "engine")
ENGINE_ROOM = {"core", "kv", "decode", "schedule", "engine", "ops", "models", "load", "run", "text", "testing"}
MAY_IMPORT = {
    "__init__": {"core", "llm"},
    "__main__": {"cli"},
    "core": set(),
    "ops": {"core"},
    "text": {"core"},
    "kv": {"core"},
    "decode": {"core"},
    "schedule": {"core", "kv", "decode"},
    "engine": {"core", "schedule"},
    "models": {"core", "ops"},
    "load": {"core", "ops", "models"},
    "run": {"core", "ops", "models"},
    "testing": {"core", "engine"},
    "trace": {"core", "kv", "decode", "schedule", "engine", "ops", "run"},
    "sizing": {"core", "ops", "run"},
    "drafting": {"core", "ops", "load", "run", "text", "sizing"},
    "wiring": ENGINE_ROOM - {"testing"} | {"trace", "sizing"},
    "build": ENGINE_ROOM - {"testing"} | {"drafting", "sizing", "wiring"},
    "bench": {"core", "engine", "ops", "testing", "build", "wiring"},
    "following": {"core", "text", "engine", "run", "build"},
    "llm": {"core", "text", "engine", "run", "trace", "build", "following", "wiring"},
    "cluster": {"core", "kv", "engine", "load", "trace", "build", "wiring"},
    "serve": {"core", "text", "engine", "trace"},
    "cli": {*ENGINE_ROOM, "bench", "build", "wiring", "llm", "cluster", "serve", "trace", "__init__"},
}
STDLIB_BANNED = {"time", "random", "os", "threading", "socket", "asyncio", "datetime", "secrets", "multiprocessing"}


def modules():
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("openwork", *(p for p in parts if p != "__init__")))] = path
    return found


MODULES = modules()


def imported(name):
    """Every module that a file names in an import, ours resolved to the file."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper in MODULES else node.module


def floor_of(name):
    path = MODULES.get(name)
    inner = name.split(".")[1:]
    return inner[0] if inner else ("__init__" if path is None or path.parent == ROOT else "")


GRAPH = {name: {m for m in imported(name) if m in MODULES and m != name} for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_table(name):
    own = floor_of(name)
    assert own in MAY_IMPORT, f"{own} has no place in the table"
    for target in GRAPH[name]:
        other = floor_of(target)
        assert other == own or other in MAY_IMPORT[own], f"{name} imports {target}"


def test_models_do_not_import_one_another():
    shared = {"openwork.models." + part for part in ("parts", "config", "rope", "trig", "decoder", "table")}
    for name in MODULES:
        if name.startswith("openwork.models.") and name not in shared:
            others = {t for t in GRAPH[name] if t.startswith("openwork.models.")} - shared
            assert not others, f"{name} imports {others}"


def test_there_is_no_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, "circle: " + " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for target in sorted(GRAPH[name]):
                visit(target)
            done.add(path.pop())

    for name in MODULES:
        visit(name)


def test_the_pure_half_imports_the_standard_library_only_and_no_clock():
    for name in MODULES:
        if floor_of(name) not in PURE:
            continue
        for target in imported(name):
            top = target.split(".")[0]
            assert top == "openwork" or top in sys.stdlib_module_names, f"{name} imports {target}"
            assert top not in STDLIB_BANNED, f"{name} imports {target}"


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_pure_half_loads_neither_numpy_nor_torch():
    names = [name for name in MODULES if floor_of(name) in PURE]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; print(*sys.modules)"
    assert {"numpy", "torch"}.isdisjoint(run_python(code))


def test_importing_openwork_loads_almost_nothing():
    loaded = run_python("import sys, openwork; print(*sys.modules)")
    assert {"numpy", "torch", "transformers", "tokenizers", "huggingface_hub", "rich", "typer"}.isdisjoint(loaded)


def test_generating_never_imports_torch():
    code = (
        "import sys\nfrom openwork import LLM, SamplingParams\n"
        "with LLM() as llm: llm.generate('once', SamplingParams(max_tokens=2))\nprint(*sys.modules)"
    )
    assert {"torch", "transformers", "huggingface_hub", "jinja2", "llguidance"}.isdisjoint(run_python(code))


def test_public_names_exist_and_are_listed():
    assert openwork.__all__ == sorted(openwork.__all__, key=lambda n: (not n.isupper(), n.startswith("_"), n))
    for name in openwork.__all__:
        assert getattr(openwork, name) is not None


def test_nothing_unpickles_or_evaluates():
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, f"{name} calls {node.func.id}"
        assert {"pickle", "marshal", "shelve", "dill", "multiprocessing"}.isdisjoint(imported(name)), name
