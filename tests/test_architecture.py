"""The arrows of the house, walked with `ast`: twostage <- (stage1_vqvae, stage2_prior) <- pipelines."""

import ast
from collections.abc import Iterator
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
