"""Packaging: real folders on top, one import name, and links that only type checkers need."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wmzoo
import wmzoo.experiments
import wmzoo.models
import wmzoo.objectives

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "objectives", "experiments")
NOT_SHIPPED = {"tests", "notebooks", "scripts", "docs", "build", "dist", "data", "runs"}
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_folder_with_code_is_shipped() -> None:
    """A new folder with Python in it is entered in `packages`, or the wheel would lack it."""
    top = [folder for folder in ROOT.iterdir() if folder.is_dir() and folder.name not in NOT_SHIPPED and not folder.name.startswith(".")]
    with_code = {path.parent for folder in top for path in folder.rglob("*.py") if not any(p.is_symlink() for p in path.parents)}
    places = SETUPTOOLS["package-dir"]
    shipped = {ROOT / places.get(package, package.replace(".", "/")) for package in SETUPTOOLS["packages"]}
    assert shipped == with_code


def test_nothing_but_wmzoo_is_a_top_level_name() -> None:
    """Nothing named `models` may land in anybody's site-packages; each room has its entry."""
    assert {package.split(".")[0] for package in SETUPTOOLS["packages"]} == {"wmzoo"}
    assert SETUPTOOLS["package-dir"] == {f"wmzoo.{room}": room for room in ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_a_checkout_runs_the_folders_on_top(room: str) -> None:
    """wmzoo.models is models/, not the link inside wmzoo/."""
    module = getattr(wmzoo, room)
    assert module.__name__ == f"wmzoo.{room}"
    assert module.__file__ == str(ROOT / room / "__init__.py")


@pytest.mark.parametrize("room", ROOMS)
def test_the_links_point_where_they_should(room: str) -> None:
    """wmzoo/models -> ../models, for type checkers."""
    link = ROOT / "wmzoo" / room
    if not link.is_symlink():
        pytest.skip("this checkout was made without symbolic links")
    assert os.readlink(link) == f"../{room}"


@pytest.mark.parametrize("links", ["kept", "lost", "copied"])
def test_a_bare_checkout_works_without_its_links(links: str, tmp_path: Path) -> None:
    """Nothing installed and the links gone, or turned into old copies: what runs is the folder on top."""
    for folder in ("wmzoo", *ROOMS):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for room in ROOMS:
        link = tmp_path / "wmzoo" / room
        if links != "kept":
            link.unlink()
        if links == "copied":
            link.mkdir()
            (link / "__init__.py").write_text("raise ImportError('the copy was imported')")
    program = "import sys; sys.path.insert(0, sys.argv[1]); from wmzoo import models, objectives, experiments; print(experiments.__file__)"
    found = subprocess.run([sys.executable, "-I", "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()) == tmp_path / "experiments" / "__init__.py"
