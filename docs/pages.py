"""Pages that are made of what is elsewhere: the README with what it links to, and the reference, a page a folder."""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hyenadna_hf"


def on_files(files, config):
    """Called by mkdocs with the files that it found."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    pages = [file.content_string for file in files.documentation_pages()]
    files.append(File.generated(config, "index.md", content=readme))
    add_linked(files, config, "".join([readme, *map(from_root, pages)]), "")
    for folder in [PACKAGE, *sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))]:
        files.append(File.generated(config, f"reference/{folder.name}.md", content=reference(folder)))
    return files


def add_linked(files, config, markdown, folder):
    """Add what a text links to, and what that links to; its links are relative to a folder of the repository."""
    for link in sorted(set(re.findall(r"\]\(([\w./-]+)", markdown))):
        target = posixpath.normpath(posixpath.join(folder, link))
        if not files.get_file_from_path(target) and (ROOT / target).is_file():
            files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
            if target.endswith(".md"):
                text = (ROOT / target).read_text(encoding="utf-8")
                add_linked(files, config, text, posixpath.dirname(target))


def on_page_markdown(markdown, page, config, files):
    """Called by mkdocs with the text of each page."""
    return markdown if page.file.generated_by else from_root(markdown)


def from_root(markdown):
    """Links out of docs/, as they are on the site: there, what is in docs/ lies beside README.md."""
    return markdown.replace("](../README.md", "](index.md").replace("](../", "](")


def reference(folder):
    """A page with the public names of the package or a folder of it: a section a module."""
    package = ".".join(folder.relative_to(ROOT).parts)
    parts = [f"# {package}"]
    for file in sorted(folder.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        if file.name == "__init__.py":
            parts.append(docstring or "")
        elif file.name != "__main__.py":
            parts.append(f"## {file.stem}\n\n::: {package}.{file.stem}\n    options:\n      show_root_toc_entry: false")
    return "\n\n".join(parts) + "\n"
