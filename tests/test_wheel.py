"""What is shipped?  A wheel with one top-level name, whose every module imports with no checkout in sight."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

IMPORT_ALL = """
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
here = Path(sys.argv[1])
sys.path.insert(0, str(here))
import wmzoo
assert Path(wmzoo.__file__) == here / "wmzoo" / "__init__.py", wmzoo.__file__
for found in walk_packages(wmzoo.__path__, "wmzoo."):
    if not found.name.endswith("__main__"):
        module = import_module(found.name)
        assert here in Path(module.__file__).parents, module.__file__
        print(found.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the checkout stays clean."""
    source = tmp_path_factory.mktemp("source") / "wmzoo"
    away = shutil.ignore_patterns(".*", "data", "runs", "build", "dist", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, source, symlinks=True, ignore=away)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source.parent), str(source)]
    built = subprocess.run(build, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(source.parent.glob("*.whl"))


def names(wheel: Path) -> list[str]:
    """The files of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_has_one_top_level_name(wheel: Path) -> None:
    """Nothing beside wmzoo/ and its own dist-info: no `models` in anybody's site-packages."""
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wmzoo"}
    assert len(tops) == 2


def test_the_wheel_holds_every_module_once(wheel: Path) -> None:
    """Each .py of the four folders, in its place below wmzoo/."""
    expected = set()
    for room in ("wmzoo", "models", "objectives", "experiments"):
        files = [path for path in (ROOT / room).rglob("*.py") if not any(p.is_symlink() for p in path.parents)]
        place = Path("wmzoo") if room == "wmzoo" else Path("wmzoo") / room
        expected |= {str(place / path.relative_to(ROOT / room)) for path in files}
    shipped = [name for name in names(wheel) if name.endswith(".py")]
    assert set(shipped) == expected
    assert len(shipped) == len(expected)


def test_every_module_of_the_wheel_imports(wheel: Path, tmp_path: Path) -> None:
    """Unpacked into an empty folder that stands first on the path, in a Python that does not know where the checkout is."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    command = [sys.executable, "-I", "-c", IMPORT_ALL, str(tmp_path / "site")]
    imported = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert imported.returncode == 0, imported.stderr
    shipped = [name for name in names(wheel) if name.endswith(".py") and not name.endswith(("__init__.py", "__main__.py"))]
    assert {name.removesuffix(".py").replace("/", ".") for name in shipped} <= set(imported.stdout.split())
