"""Every notebook runs from top to bottom, in an empty folder.

With a tenth of its training, and with recordings that all of them share, unless `make notebooks` asks for all of it.
"""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
BRIEF = """
import os
import shutil
from dataclasses import replace
from pathlib import Path
import wmzoo.collect
import wmzoo.run
from wmzoo.files import alone_in

def brief(experiment):
    optim, stages = experiment.optim, {name: brief(stage) for name, stage in experiment.stages.items()}
    steps = max(20, optim.steps // 10)
    return replace(experiment, stages=stages, optim=replace(optim, steps=steps, chapter=min(optim.chapter, steps // 2)))

def shared(tasks, root, size, episodes, processes):
    home = Path(os.environ["WMZOO_RECORDINGS"]) / f"{size}-{episodes}"
    home.mkdir(parents=True, exist_ok=True)
    with alone_in(home, wait=True):
        recorded(tasks, home / "data", size=size, episodes=episodes, processes=processes)
    shutil.copytree(home / "data", root)

whole, recorded = wmzoo.run.train, wmzoo.collect.collect
wmzoo.run.train = lambda experiment, out: whole(brief(experiment), out)
wmzoo.collect.collect = shared
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executed as a reader would, every figure appears; notebooks are stored without output."""
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    if os.environ.get("WMZOO_NOTEBOOKS") != "whole":
        base = tmp_path_factory.getbasetemp()
        everybodys = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        monkeypatch.setenv("WMZOO_RECORDINGS", str(everybodys / "recordings"))
        notebook.cells.insert(0, nbformat.v4.new_code_cell(BRIEF))
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


def test_there_are_notebooks() -> None:
    """An empty list would make the test above pass for nothing."""
    assert NOTEBOOKS
