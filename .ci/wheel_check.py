"""Build the sdist and from it the wheel, install the wheel outside the checkout, and run the command from there.

The fresh environment borrows the dependencies of this one through a path file. Path files inside a borrowed folder are
not read, so the editable install of the checkout stays out of reach and cannot stand in for what the wheel lacks.
"""

import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
# Folder in the checkout -> import name.
PACKAGES = {
    "twostage": "twostage",
    "stage1_vqvae": "stage1_vqvae",
    "stage2_prior": "stage2_prior",
    "pipelines": "twostage_pipelines",
    "configs": "twostage_configs",
}
_WHERE = f"""
import importlib
for name in {list(PACKAGES.values())!r}:
    print(importlib.import_module(name).__file__)
"""


def main() -> None:
    """Exit with a sentence at the first thing that is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        wheel = _build(folder / "dist")
        _check_contents(wheel)
        _check_installed(wheel, folder / "env")
    print(f"wheel check passed: {wheel.name}")


def _build(target: Path) -> Path:
    _run([sys.executable, "-m", "build", "--outdir", str(target), str(CHECKOUT)], cwd=CHECKOUT)
    (wheel,) = target.glob("*.whl")
    return wheel


def _check_contents(wheel: Path) -> None:
    """The wheel holds every module, recipe and type marker of the checkout's packages, and nothing else."""
    expected = {
        str(Path(package) / path.relative_to(CHECKOUT / folder))
        for folder, package in PACKAGES.items()
        for pattern in ("*.py", "*.toml", "py.typed")
        for path in (CHECKOUT / folder).rglob(pattern)
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if found != expected:
        sys.exit(
            f"wheel: missing {sorted(expected - found)}, unexpected {sorted(found - expected)}; see pyproject.toml"
        )


def _check_installed(wheel: Path, env: Path) -> None:
    _run([sys.executable, "-m", "venv", "--without-pip", str(env)], cwd=CHECKOUT)
    python = env / "bin" / "python"
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)], cwd=env)
    site = next(env.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    for path in _run([str(python), "-c", _WHERE], cwd=env).split():
        if not Path(path).is_relative_to(env):
            sys.exit(f"wheel: {path} was imported instead of the installed package")
    command = str(env / "bin" / "twostage")
    _run([command, "--help"], cwd=env)
    listed = _run([command, "recipes"], cwd=env)
    for recipe in (CHECKOUT / "configs").glob("*.toml"):
        if recipe.stem not in listed:
            sys.exit(f"wheel: `twostage recipes` does not list {recipe.stem}")
    _run([command, "train", "digits", "--help"], cwd=env)


def _run(command: list[str], *, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
