"""Tables in Markdown."""


def markdown_table(head, rows):
    """
    The lines of a table.

    Args:
        head (`Sequence`): What the columns are called.
        rows (`Iterable[Sequence]`): Cells; a line break in one becomes a space.

    Returns:
        `list[str]`
    """
    head, *rows = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows))
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
