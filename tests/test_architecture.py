"""The arrows of the house, walked with `ast`: twostage <- (stage1_vqvae, stage2_prior) <- pipelines."""

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"twostage", "stage1_vqvae", "stage2_prior", "pipelines", "twostage_pipelines", "configs", "twostage_configs"}
# configs/ is read as data (importlib.resources), never imported; pipelines/ files import one another relatively.
ALLOWED = {
    "twostage": {"twostage"},
    "stage1_vqvae": {"twostage", "stage1_vqvae"},
    "stage2_prior": {"twostage", "stage2_prior"},
    "pipelines": {"twostage", "stage1_vqvae", "stage2_prior"},
    "configs": set[str](),
}
FILES = sorted(path for folder in ALLOWED for path in (ROOT / folder).rglob("*.py"))
ALL_FILES = sorted({*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")})


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all absolute imports, those inside functions and of import_module calls included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            yield from (
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def dotted(node: ast.expr) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def faults(path: Path, folder: str) -> list[str]:
    """What is wrong with the imports of a file of `folder`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    depth = len(path.relative_to(ROOT / folder).parts)
    used = {name.split(".")[0] for name in imports(tree)} & OURS
    wrong = [f"imports {name}" for name in sorted(used - ALLOWED[folder])]
    climbs = (node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return wrong + [f"relative import climbs out of {folder}" for level in climbs if level > depth]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_follow_the_arrows(path: Path) -> None:
    assert faults(path, path.relative_to(ROOT).parts[0]) == []


OF_PIPELINES = [path for path in ALL_FILES if "pipelines" in path.relative_to(ROOT).parts[:-1]]


@pytest.mark.parametrize("path", OF_PIPELINES, ids=named)
def test_tests_of_pipelines_use_the_installed_name(path: Path) -> None:
    """Two names for one module would be two modules, each with classes of its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {name for name in imports(tree) if name.split(".")[0] in ("pipelines", "configs")}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_nothing_can_run_code_from_a_file(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for name in imports(tree)}
    assert not roots & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            # A bare name, so that model.eval() and re.compile() are not meant.
            assert getattr(node.func, "id", "") not in ("eval", "exec", "compile"), f"line {node.lineno}"
            assert dotted(node.func) not in ("torch.load", "torch.save"), f"line {node.lineno}"
            allow = [word for word in node.keywords if word.arg == "allow_pickle"]
            assert all(isinstance(word.value, ast.Constant) and word.value.value is False for word in allow)


@pytest.mark.parametrize("path", ALL_FILES, ids=named)
def test_files_are_small_and_named_for_their_subject(path: Path) -> None:
    assert path.stem not in ("utils", "helpers", "util", "helper", "misc", "common", "builders")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") >= 20


@pytest.mark.parametrize(
    ("folder", "source", "fault"),
    [
        ("twostage", "def f():\n    from stage1_vqvae import VQVAE", "imports stage1_vqvae"),
        ("stage1_vqvae", "import stage2_prior.sampling", "imports stage2_prior"),
        (
            "stage2_prior",
            "import importlib\nimportlib.import_module('twostage_pipelines.runs.run')",
            "imports twostage_pipelines",
        ),
        ("pipelines", "from twostage_pipelines import cli", "imports twostage_pipelines"),
        ("pipelines", "from .. import x", "climbs out"),
        ("twostage", "import torch\nfrom .errors import RunError", ""),
    ],
)
def test_the_walk_sees_forbidden_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, source: str, fault: str
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path, raising=True)
    path = tmp_path / folder / "probe.py"
    path.parent.mkdir()
    path.write_text(source, encoding="utf-8")
    found = faults(path, folder)
    assert (fault in found[0]) if fault else found == []


# What each folder inside the packages imports from. It may import from their folders in turn, too, and from no other.
# Imports inside functions count, those under `if TYPE_CHECKING` do not. `pipelines.cli` reaches the verbs by name.
ARROWS: dict[str, tuple[str, ...]] = {
    "twostage": (),
    "twostage.layers": ("twostage",),
    "twostage.storage": ("twostage",),
    "twostage.config": ("twostage.storage",),
    "twostage.data": ("twostage.config",),
    "twostage.data.arrays": ("twostage.config",),
    "twostage.data.images": ("twostage.config", "twostage.data.arrays"),
    "twostage.data.audio": ("twostage.config",),
    "twostage.likelihoods": ("twostage.data", "twostage.data.audio"),
    "twostage.metrics": ("twostage.data", "twostage.data.audio"),
    "twostage.training": ("twostage.metrics",),
    "stage1_vqvae": (),
    "stage1_vqvae.quantiser": ("stage1_vqvae",),
    "stage1_vqvae.images": ("stage1_vqvae.quantiser",),
    "stage1_vqvae.audio": ("stage1_vqvae.quantiser",),
    "stage2_prior": (),
    "pipelines.media": (),
    "pipelines.commands": (),
    "pipelines.modality": ("pipelines.media",),
    "pipelines.runs": ("pipelines.modality", "pipelines.media", "pipelines.commands"),
    "pipelines.bits": ("pipelines.runs",),
    "pipelines.generate": ("pipelines.runs",),
    "pipelines.coding": ("pipelines.bits", "pipelines.generate"),
    "pipelines.evaluate": ("pipelines.bits", "pipelines.generate"),
    "pipelines.export": ("pipelines.evaluate",),
    "pipelines.report": ("pipelines.evaluate",),
    "pipelines.watch": ("pipelines.runs",),
    "pipelines.train": ("pipelines.report", "pipelines.watch"),
    "pipelines.cli": ("pipelines.runs",),
    "pipelines": ("pipelines.cli",),
}
# twostage/data/ itself holds both what readers of every kind share and what chooses among the kinds: folders that see
# each other, modules that do not (test_no_module_imports_itself_in_a_circle). The kinds never see each other.
BOTH_WAYS = {
    (one, other)
    for kind in ("twostage.data.arrays", "twostage.data.images", "twostage.data.audio")
    for one, other in ((kind, "twostage.data"), ("twostage.data", kind))
}


def modules() -> dict[str, Path]:
    """The modules of all packages under their names in the tree (`pipelines.runs.run`); a package is its folder."""
    found = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    return {name.removesuffix(".__init__"): path for name, path in found.items() if not name.startswith("configs")}


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `tree`, without what is there for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and dotted(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield from (other, *nodes(other))
        else:
            yield from (node, *nodes(node))


def imported(name: str, paths: dict[str, Path]) -> set[str]:
    """The modules among `paths` that module `name` imports at any time, by absolute, relative or written name."""
    package = name if paths[name].name == "__init__.py" else name.rpartition(".")[0]
    wanted = set[str]()
    for node in nodes(ast.parse(paths[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            wanted |= {f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and called(node) == "import_module":
            wanted |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    found = (nearest(each.replace("twostage_pipelines", "pipelines", 1), paths) for each in wanted)
    return {each for each in found if each is not None and each != name}


def nearest(wanted: str, paths: dict[str, Path]) -> str | None:
    """The module that holds `wanted`: itself, or what it is an attribute of; None of other libraries."""
    while wanted and wanted not in paths:
        wanted = wanted.rpartition(".")[0]
    return wanted or None


def home(name: str, paths: dict[str, Path]) -> str:
    return name if paths[name].name == "__init__.py" else name.rpartition(".")[0]


def reached(start: str, arrows: Mapping[str, Collection[str]]) -> set[str]:
    """All that arrows lead to from `start`; it is among them only if it stands in a circle."""
    found, todo = set[str](), list(arrows[start])
    while todo:
        if (each := todo.pop()) not in found:
            found.add(each)
            todo.extend(arrows[each])
    return found


def backwards(paths: dict[str, Path]) -> list[str]:
    """The imports between folders of one package that no arrow allows."""
    pairs = [(name, other) for name in paths for other in sorted(imported(name, paths))]
    return [
        f"{name} imports {other}"
        for name, other in pairs
        if (of := home(name, paths)) != (by := home(other, paths))
        and of.split(".")[0] == by.split(".")[0]
        and by not in reached(of, ARROWS)
        and (of, by) not in BOTH_WAYS
    ]


def test_folders_import_downwards_only() -> None:
    paths = modules()
    assert {home(name, paths) for name in paths} == set(ARROWS)  # a new folder has its arrows listed here
    assert [folder for folder in ARROWS if folder in reached(folder, ARROWS)] == []
    assert backwards(paths) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """At the top or inside a function: a circle of either kind is two modules that are one."""
    paths = modules()
    arrows = {name: imported(name, paths) for name in paths}
    assert [name for name in arrows if name in reached(name, arrows)] == []


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("from ..report.report import page", {"pipelines.report.report"}),
        ("def f():\n    from ..report import report", {"pipelines.report.report"}),
        ("import importlib\nimportlib.import_module('twostage_pipelines.report.report')", {"pipelines.report.report"}),
        ("from .probe import f\nfrom ..report import page", {"pipelines.report"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..report import report", set()),
        ("import numpy\nfrom .. import main", {"pipelines"}),
    ],
)
def test_the_walk_sees_arrows_between_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, seen: set[str]
) -> None:
    texts = {"runs/probe": source, "__init__": "", "report/__init__": "", "report/report": "from ..runs import probe"}
    for name, text in texts.items():
        path = tmp_path / "pipelines" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path, raising=True)
    monkeypatch.setattr(f"{__name__}.FILES", sorted(tmp_path.rglob("*.py")), raising=True)
    paths = modules()
    assert imported("pipelines.runs.probe", paths) == seen
    assert len(backwards(paths)) == len(seen)
    arrows = {name: imported(name, paths) for name in paths}
    assert ("pipelines.runs.probe" in reached("pipelines.runs.probe", arrows)) == ("pipelines.report.report" in seen)
