"""The notebook: it runs from top to bottom, with short settings, and has no outputs in git."""

import json

import pytest

from common.paths import ROOT

NOTEBOOK = ROOT / "DanceLikeThem.ipynb"


def cells(kind):
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_it_holds_no_outputs():
    """They would be pictures of people, and each run would change the file."""
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))
    assert sum(len(cell["metadata"].get("tags", [])) for cell in cells("code")) == 1


@pytest.mark.journey
def test_it_runs_from_top_to_bottom(clip, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = (cell for cell in notebook.cells if "parameters" in cell["metadata"].get("tags", []))
    settings.source += (f"\nSOURCE = TARGET = {str(clip)!r}\nTRUTH = ['--truth', TARGET]\nFRAMES, MINUTES = 10, 0.1\n"
                        f"OUT = Path({str(tmp_path)!r})")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in shown if output.output_type == "stream")
    pictures = [output for output in shown if "data" in output and "image/png" in output.data]
    assert "frames/s" in printed and "held-out PSNR" in printed and "| GenWarp |" in printed
    assert len(pictures) == 3 and any("text/html" in output.get("data", {}) for output in shown)
