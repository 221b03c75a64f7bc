"""Hooks of mkdocs: the README as home page, files that pages link to, and a reference page per folder."""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hyenadna_hf"
FOLDERS = [PACKAGE, *sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))]


def on_config(config):
    """Add the reference pages to the navigation; mkdocs calls this first."""
    config.nav.append({"Python": [f"reference/{folder.name}.md" for folder in FOLDERS]})
    return config


def on_files(files, config):
    """Add generated pages to the files that mkdocs found."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [file.content_string for file in files.documentation_pages()]
    files.append(File.generated(config, "index.md", content=readme))
    add_linked(files, config, "".join([readme, "[](CHANGELOG.md)", *map(from_root, pages)]), "")
    for folder in FOLDERS:
        files.append(File.generated(config, f"reference/{folder.name}.md", content=reference(folder)))
    return files


def add_linked(files, config, markdown, folder):
    """Add the files that a text in a folder of the repository links to, and those that they link to."""
    for link in sorted(set(re.findall(r"\]\(([\w./-]+)", markdown))):
        target = posixpath.normpath(posixpath.join(folder, link))
        on_site = files.get_file_from_path(target.removeprefix("docs/"))
        if not on_site and (ROOT / target).is_file():
            files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
            if target.endswith(".md"):
                text = (ROOT / target).read_text(encoding="utf-8")
                add_linked(files, config, text, posixpath.dirname(target))


def on_page_markdown(markdown, page, config, files):
    """Mend the links of a page; mkdocs calls this with the text of each."""
    return re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", markdown) if page.file.generated_by else from_root(markdown)


def from_root(markdown):
    """Rewrite links out of docs/: on the site, the content of docs/ stands beside README.md."""
    return markdown.replace("](../README.md", "](index.md").replace("](../", "](")


def reference(folder):
    """Write a page with the public names of the package or of one of its folders, a section per module."""
    package = ".".join(folder.relative_to(ROOT).parts)
    parts = [f"# {package}"]
    for file in sorted(folder.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        if file.name == "__init__.py":
            parts.append(docstring or "")
        elif file.name != "__main__.py":
            parts.append(f"## {file.stem}\n\n::: {package}.{file.stem}\n    options:\n      show_root_toc_entry: false")
    return "\n\n".join(parts) + "\n"
