"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """
    Format a Markdown table.

    Args:
        head: Names of the columns.
        rows: Cells of each row; line breaks become spaces.

    Returns:
        The lines of the table.
    """
    head, *rows = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows))
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
