"""The rules of docs/development/architecture.md, checked on the source: rooms, imports, sizes, calls, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import ROOT

PACKAGE = ROOT / "autodistill"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 600  # lines, exclusive
LONGEST_FUNCTION = 60
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "ray",
    "optuna",
    "matplotlib",
    "sklearn",
    "pandas",
    "scipy",
    "moocore",
    "plotly",
)
ROOMS = ("core", "config", "search", "training", "engines", "delivery", "commands")
# What a room may never import, at any level, lazily or for types.
FORBIDDEN = {
    "core": ("config", "search", "training", "engines", "delivery", "commands", "pydantic"),
    "config": ("training", "engines", "delivery", "commands", "torch", "timm", "ray"),
    "search": ("training", "engines", "delivery", "commands", "config", "torch", "timm", "torchvision", "ray"),
    "training": ("search", "engines", "delivery", "commands", "config", "optuna", "ray"),
    "engines": ("delivery", "commands"),
    "delivery": ("commands",),
    "commands": (),
}
# Import arrows that run upwards, each inside a method that only hands over: an object offers what people do with it.
UPWARD = {
    ("search/study/study.py", "autodistill.api"): "Study.open and Study.create, kept for programs that use them",
    ("search/results/front.py", "autodistill.delivery.figures.front_png"): "Front.plot draws",
    ("search/results/front_member.py", "autodistill.delivery.export.loading"): "FrontMember.load reads a network",
    ("search/results/front_member.py", "autodistill.delivery.export.write"): "FrontMember.export writes files",
    ("search/results/front_member.py", "autodistill.delivery.export.exported"): "the type that export returns",
}
LARGEST_FOLDER = 14  # modules side by side
# What may be imported while a module itself is loaded; everywhere else these wait inside functions.
EAGER = {
    "search": ("optuna", "scipy", "sklearn"),
    "training": ("torch", "timm", "torchvision"),
}
# Modules that are themselves imported only when their library is wanted.
GUARDED = {"engines/ray/tune.py": ("ray",), "engines/ray/worker.py": ("ray",)}


@dataclass(frozen=True)
class Import:
    """One import: the module it is in, what it names, whether it runs when the module is loaded."""

    where: Path
    line: int
    target: str
    eager: bool
    typing: bool = False

    def __str__(self) -> str:
        return f"{self.where.relative_to(ROOT)}:{self.line} imports {self.target}"


def imports_of(path: Path) -> Iterator[Import]:
    def walk(node: ast.AST, eager: bool, typing: bool = False) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for part in child.body:
                    yield from walk(ast.Module([part], []), False, True)
                for part in child.orelse:
                    yield from walk(ast.Module([part], []), eager)
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(path, child.lineno, alias.name, eager, typing)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                for alias in child.names:
                    yield Import(path, child.lineno, f"{base}.{alias.name}", eager, typing)
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from walk(child, eager and not inside, typing)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


ALL = [one for path in MODULES for one in imports_of(path)]
NAMES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES}
Graph = dict[str, set[str]]


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first if first in ROOMS else ""


def in_package(target: str, name: str) -> bool:
    """Whether ``target`` is the room or library ``name`` (or something in it)."""
    full = f"autodistill.{name}" if name in ROOMS else name
    return target == full or target.startswith(f"{full}.")


def module_of(target: str) -> str | None:
    """The module of the package that an import names, whether the module itself or something in it."""
    while target and target not in NAMES:
        target = target.rpartition(".")[0]
    return target or None


def upward(one: Import) -> bool:
    return (one.where.relative_to(PACKAGE).as_posix(), module_of(one.target)) in UPWARD


def graph() -> Graph:
    """Which module imports which, eagerly, lazily or for types; without the upward arrows that are listed."""
    found: Graph = {name: set() for name in NAMES}
    names = {path: name for name, path in NAMES.items()}
    for one in ALL:
        target = module_of(one.target)
        # the package itself holds the version and public names, which it loads on demand
        if target not in (None, "autodistill", names[one.where]) and not upward(one):
            found[names[one.where]].add(target)
    del found["autodistill"]
    return found


def circles(arrows: Graph) -> list[set[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components of two or more)."""
    reach = {node: _reached(arrows, node) for node in arrows}
    groups = {frozenset(other for other in reach[node] if node in reach[other]) for node in arrows}
    return [set(group) for group in groups if len(group) > 1]


def _reached(arrows: Graph, start: str) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_no_room_imports_what_it_must_not_know(room: str) -> None:
    wrong = [
        str(one)
        for one in ALL
        if room_of(one.where) == room
        and any(in_package(one.target, name) for name in FORBIDDEN[room] if name in ROOMS or not one.typing)
        and not upward(one)
    ]
    assert wrong == []


def test_every_listed_upward_import_is_there_and_waits_in_a_function() -> None:
    found = {(one.where.relative_to(PACKAGE).as_posix(), module_of(one.target)): one.eager for one in ALL}
    assert {arrow: found.get(arrow) for arrow in UPWARD} == dict.fromkeys(UPWARD, False)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(graph()) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    arrows: Graph = {}
    for name, targets in graph().items():
        here = folder_of(name)
        arrows.setdefault(here, set()).update(folder_of(target) for target in targets)
    assert circles({folder: targets - {folder} for folder, targets in arrows.items()}) == []


def folder_of(name: str) -> str:
    """The folder of a module; modules beside the rooms stand each for itself."""
    folder = NAMES[name].relative_to(PACKAGE).parent.as_posix()
    return folder if folder != "." else name


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


def test_no_folder_is_crowded() -> None:
    counts: dict[str, int] = {}
    for path in MODULES:
        if path.name != "__init__.py":
            folder = path.parent.relative_to(ROOT).as_posix()
            counts[folder] = counts.get(folder, 0) + 1
    assert {folder: count for folder, count in counts.items() if count > LARGEST_FOLDER} == {}


def test_no_public_class_name_stands_for_two_things() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_tests_are_laid_out_like_the_rooms() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    rooms = {path.parent.relative_to(PACKAGE).as_posix() for path in MODULES}
    assert folders - rooms - {".", "contracts", "docs", "benchmarks", "faults", "security"} == set()


def test_heavy_libraries_wait_inside_functions() -> None:
    def allowed(path: Path) -> tuple[str, ...]:
        return (*EAGER.get(room_of(path), ()), *GUARDED.get(path.relative_to(PACKAGE).as_posix(), ()))

    wrong = [
        str(one)
        for one in ALL
        if one.eager and any(in_package(one.target, name) for name in HEAVY if name not in allowed(one.where))
    ]
    assert wrong == []


def test_commands_load_no_room_that_loads_a_heavy_library() -> None:
    """``autodistill --help`` imports every command: only their functions may reach into search, training, delivery."""
    allowed = ("autodistill.search.results.gain",)  # plain arithmetic, tested to load nothing heavy
    wrong = [
        str(one)
        for one in ALL
        if room_of(one.where) == "commands"
        and one.eager
        and any(in_package(one.target, room) for room in ("search", "training", "delivery", "engines"))
        and not one.target.startswith(allowed)
    ]
    assert wrong == []


def test_no_module_is_long() -> None:
    counts = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: count for path, count in counts.items() if count >= LONGEST} == {}


def test_no_function_is_long() -> None:
    """Of a function, its statements count: a command's options and a docstring may be as long as they need to be."""
    long = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body and node.end_lineno else 0
                if lines > LONGEST_FUNCTION:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


JUST_WRITTEN = {"autodistill/delivery/export/formats.py": ("torch.export.load", "torch.jit.load")}
"""Files that load what the same call has just written, to see that it can be read."""


def test_nothing_is_unpickled_evaluated_or_run_by_a_shell() -> None:
    wrong = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not (problem := _forbidden_call(node)):
                continue
            if problem not in JUST_WRITTEN.get(path.relative_to(ROOT).as_posix(), ()):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {problem}")
    wrong += [
        str(one)
        for one in ALL
        if one.target.split(".")[0] in ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
    ]
    assert wrong == []


def _forbidden_call(call: ast.Call) -> str:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
        return name
    if name == "torch.load" and given.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name in ("torch.export.load", "torch.jit.load", "torch.hub.load"):
        return name
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        return f"{name}; read YAML with autodistill.core.strict_yaml"
    if name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
        return "np.load with allow_pickle"
    return "shell=True" if given.get("shell") == "True" else ""


def test_the_forbidden_calls_are_recognised() -> None:
    bad = ("eval('1')", "torch.load(p)", "torch.load(p, weights_only=False)", "yaml.load(t, L)", "run(c, shell=True)")
    for text in bad:
        node = ast.parse(text, mode="eval").body
        assert isinstance(node, ast.Call)
        assert _forbidden_call(node), text
    good = ast.parse("torch.load(p, weights_only=True)", mode="eval").body
    assert isinstance(good, ast.Call)
    assert not _forbidden_call(good)


PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "studies").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_of_a_page_resolve(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert missing == []


def test_no_path_of_a_machine_is_in_the_package_or_the_pages() -> None:
    machine = re.compile(r"(?<![\w.])/(?:work|root|home|tmp|mnt|Users)/\w")
    files = [*MODULES, *PAGES, *sorted((ROOT / "examples").glob("*.py")), ROOT / ".ci" / "run"]
    assert [str(path) for path in files if machine.search(path.read_text(encoding="utf-8"))] == []
