"""The notebooks run, quickly, in a kernel of their own; what is committed is the outcome of a full run."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 400_000  # bytes
WITH_PICTURES = {path.name for path in NOTEBOOKS} - {"07_publish.ipynb"}
# Variables that lead notebooks to data that may not be part of the project.
SHARED_FILES = {
    "08_brca1": {
        "BRCA1_TABLE": "data/variants/brca1_sge.csv.gz",
        "BRCA1_FASTA": "data/variants/brca1_chr17_hg19.fa.gz",
    }
}


def code_cells(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_index_lists_every_notebook():
    linked = re.findall(r"\]\((\w+\.ipynb)\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert linked == [path.name for path in NOTEBOOKS]
    assert len(NOTEBOOKS) >= 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_those_of_one_full_run(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert "parameters" in cells[0]["metadata"]["tags"]
    assert cells[0]["source"][0].startswith("QUICK = False")
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"]
    kinds = {kind for output in outputs for kind in output.get("data", ())}
    assert not any("widget" in kind for kind in kinds)
    assert "widgets" not in json.loads(path.read_text(encoding="utf-8"))["metadata"]  # of hidden progress bars
    assert "image/png" in kinds or path.name not in WITH_PICTURES
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_have_no_paths_and_warnings(path):
    for cell in code_cells(path):
        for output in cell["outputs"]:
            text = "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))
            assert not re.search(r"/(home|Users|root|tmp|work|opt|usr|var)\b|Warning|\d%\|", text), text


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_without_error(path, tmp_path, monkeypatch, request):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name, file in SHARED_FILES.get(path.stem, {}).items():
        monkeypatch.setenv(name, str(request.getfixturevalue("shared") / file))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    parameters = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    notebook.cells.insert(parameters + 1, nbformat.v4.new_code_cell("QUICK = True"))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()  # CellExecutionError on the first error
    written = [text for cell in notebook.cells for text in cell.get("outputs", ()) if text.get("name") == "stderr"]
    assert not written
