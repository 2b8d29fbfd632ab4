"""Bring notebooks to the normal form in which they are committed.

    clean_notebooks.py [--execute] [--check] [FILES]        FILES: all of book/*.ipynb when none is named

The normal form keeps sources, ids, tags and figure metadata. It drops every output, but for the text of the cells
tagged `nbval-check-output`: those keep it, with an execution count, because nbval compares it with what a run prints.
`--execute` runs each notebook first, from a fresh kernel, in its own folder. `--check` changes nothing and names the
files that are not in normal form.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CHECKED = "nbval-check-output"
CELL_METADATA = {"mystnb", "nbgrader", "tags"}
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def text_outputs(outputs, count):
    """Return the text of `outputs`: streams, neighbours joined, and the text/plain of results."""
    kept = []
    for output in outputs:
        if output.output_type == "error":
            raise ValueError(f"a cell ended in an error: {output.ename}: {output.evalue}")
        if output.output_type == "stream":
            if kept and kept[-1].get("name") == output.name:
                kept[-1].text += output.text
            else:
                kept.append(nbformat.v4.new_output("stream", name=output.name, text=output.text))
        elif "text/plain" in output.data:
            output = nbformat.v4.new_output(output.output_type, data={"text/plain": output.data["text/plain"]})
            if output.output_type == "execute_result":
                output.execution_count = count
            kept.append(output)
    return kept


def normal_form(notebook):
    """Return a new notebook in normal form."""
    cells, count = [], 0
    for cell in notebook.cells:
        source = re.sub(r"[ \t]+$", "", cell.source, flags=re.M) if cell.cell_type == "code" else cell.source
        source = source.strip("\n")
        if not source.strip():
            continue
        metadata = {key: value for key, value in cell.metadata.items() if key in CELL_METADATA}
        if "tags" in metadata:
            metadata["tags"] = sorted(metadata["tags"])
        make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}[cell.cell_type]
        new = make(source, id=cell.get("id") or f"cell-{len(cells) + 1}", metadata=metadata)
        if cell.cell_type == "code":
            count += 1
            if CHECKED in metadata.get("tags", ()) and cell.execution_count is not None:
                new.execution_count = count
                new.outputs = text_outputs(cell.outputs, count)
        cells.append(new)
    clean = nbformat.v4.new_notebook(cells=cells, metadata=NOTEBOOK_METADATA)
    clean.nbformat_minor = 5
    nbformat.validate(clean)
    return clean


def execute(notebook, folder):
    """Run `notebook` in place, from a fresh kernel, in `folder`."""
    from nbclient import NotebookClient

    NotebookClient(
        notebook, kernel_name="python3", timeout=600, record_timing=False, resources={"metadata": {"path": str(folder)}}
    ).execute()


def clean(path, *, run=False):
    """Return the text of the file as it stands and as it should be."""
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    if run:
        execute(notebook, path.parent)
    return before, nbformat.writes(normal_form(notebook)) + "\n"


def main():
    """Clean or check the files named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--execute", action="store_true", help="run each notebook first")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is not in normal form")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILES")
    options = parser.parse_args()
    changed = []
    for path in options.files or sorted((ROOT / "book").glob("*.ipynb")):
        before, after = clean(path, run=options.execute)
        if before != after:
            changed.append(path)
            if not options.check:
                path.write_text(after, encoding="utf-8")
            print(f"{path}: {'not in normal form' if options.check else 'cleaned'}")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
