"""Every name that a benchmark imports from this project is there: benchmarks are run by hand, long after a change."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").rglob("*.py"))
OURS = ("twostage", "stage1_vqvae", "stage2_prior", "twostage_pipelines")


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            assert node.module is not None
            module = import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert [name for name in missing if find_spec(f"{node.module}.{name}") is None] == []


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_script_imports_no_script_of_another_folder(path: Path) -> None:
    """Started by its path, it sees its own folder alone."""
    strangers = {other.stem for other in BENCHMARKS} - {other.stem for other in path.parent.glob("*.py")}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not strangers & set(names)
