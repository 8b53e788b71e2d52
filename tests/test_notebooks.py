"""Every notebook runs from top to bottom, in an empty folder; with a tenth of its training unless `make notebooks` asks for all of it."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
BRIEF = """
from dataclasses import replace
import wmzoo.run

def brief(experiment):
    optim, stages = experiment.optim, {name: brief(stage) for name, stage in experiment.stages.items()}
    steps = max(20, optim.steps // 10)
    return replace(experiment, stages=stages, optim=replace(optim, steps=steps, chapter=min(optim.chapter, steps // 2)))

whole = wmzoo.run.train
wmzoo.run.train = lambda experiment, out: whole(brief(experiment), out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    """Executed as a reader would, every figure appears; notebooks are stored without output."""
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    if os.environ.get("WMZOO_NOTEBOOKS") != "whole":
        notebook.cells.insert(0, nbformat.v4.new_code_cell(BRIEF))
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


def test_there_are_notebooks() -> None:
    """An empty list would make the test above pass for nothing."""
    assert NOTEBOOKS
