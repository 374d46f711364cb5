"""The notebooks of the documentation run, and what they claim holds."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """Start the kernel of all notebooks, which imports jwst once, in an empty home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "TMPDIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        client = NotebookClient(nbformat.v4.new_notebook())
        client.create_kernel_manager()
        client.start_new_kernel()
        yield client.km
        client.km.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path, kernel, tmp_path):
    """Run each with empty names, in an empty folder; the notebooks assert what they say."""
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    start = f"%reset -f\n%cd -q {tmp_path}\n%matplotlib inline"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(start))
    NotebookClient(notebook, km=kernel, timeout=300).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)
