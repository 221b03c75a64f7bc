"""Tables of labelled variants: CSV, TSV, JSON, Parquet, VCF, and published tables on the Hub."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.files import find_published, read_file, read_hub, row_name
from ..data.labelled import MISSING
from ..data.source import read_prefix, regular_file
from ..errors import InputError
from .score_variants import open_vcf, vcf_records
from .variants import Variant

COLUMNS = ("chrom", "pos", "ref", "alt")
WANTED = "a table of variants"
_VCF = (b"##fileformat=VCF", b"BCF")


@dataclass(frozen=True)
class PublishedTable:
    """
    A published table of variants.

    Attributes:
        repository: Id on the Hub.
        configuration: Configuration of the repository.
        label_column: Column of the labels.
        positive: The positive label.
        genome: Genome assembly of the positions.
        target_column: Column of measured effects.
    """

    repository: str
    configuration: str | None
    label_column: str
    positive: str
    genome: str
    target_column: str | None = None


# TraitGym: Benegas, Eraslan and Song 2025. findlay_2018: Findlay et al., Nature 562:217 (BRCA1).
PUBLISHED = {
    "traitgym_mendelian": PublishedTable("songlab/TraitGym", "mendelian_traits", "label", "True", "GRCh38"),
    "traitgym_complex": PublishedTable("songlab/TraitGym", "complex_traits", "label", "True", "GRCh38"),
    "findlay_2018": PublishedTable("HuggingFaceBio/brca1-vep", None, "class", "LOF", "GRCh37", "score"),
}


def read_variants(source: str | Path) -> tuple[list[Variant], pd.DataFrame]:
    """
    Read a table of variants.

    Args:
        source: A file with the columns `chrom` or `#CHROM`, `pos` (1-based, as in VCF), `ref` and `alt`, in any case; a
            VCF or BCF file, with a row per alternate allele and the fields of INFO as columns; `-` for standard input;
            or a key of `PUBLISHED`. The format is detected from the content.

    Returns:
        The variants, and all columns of the table as strings, with rows numbered from 0.

    Raises:
        InputError: If the table cannot be read, lacks a column, has no rows, or contains an invalid position.
    """
    published = find_published(source, PUBLISHED)
    if published is not None:
        table = pd.concat(read_hub(published.repository, published.configuration).values(), ignore_index=True)
    elif _is_vcf(source):
        table = _read_vcf(source)
    else:
        table = read_file(Path(source), WANTED).reset_index(drop=True)
    table = table.rename(columns={name: name.lstrip("#") for name in table.columns})
    table = table.rename(columns={find_column(source, table, name): name for name in COLUMNS})
    if not len(table):
        raise InputError(f"{source}: the table contains no variant.")
    wrong = [row for row, position in table["pos"].items() if not re.fullmatch(r"0*[1-9]\d{0,17}", position)]
    if wrong:
        raise InputError(
            f"{source}, {row_name(wrong[0])}: the position {table['pos'][wrong[0]]!r} is invalid; it must be a whole "
            "number of at least 1."
        )
    rows = zip(*(table[name] for name in COLUMNS))
    return [Variant(chrom, int(pos) - 1, ref, alt or None) for chrom, pos, ref, alt in rows], table


def find_column(source: str | Path, table: pd.DataFrame, name: str, option: str | None = None) -> str:
    """
    Find a column by its name, in any case; an exact match takes precedence.

    Args:
        source: Name of the table in errors.
        table: The table.
        name: Name of the column.
        option: Option that names the column, for errors.

    Raises:
        InputError: If no column matches, or several do.
    """
    if name in table.columns:
        return name
    matches = [column for column in table.columns if column.lower() == name.lower()]
    if len(matches) != 1:
        where = f"--{option} {name}" if option else source
        problem = f"has {len(matches)} columns" if matches else "has no column"
        raise InputError(f"{where}: the table {problem} {name!r}; its columns are {', '.join(table.columns)}.")
    return matches[0]


def numbers_of(source: str | Path, table: pd.DataFrame, name: str, option: str) -> np.ndarray:
    """
    Convert a column to numbers, with NaN for missing values; the arguments are those of [`find_column`].

    Raises:
        InputError: If a value is not a number, or all are missing.
    """
    column = find_column(source, table, name, option)
    present = ~table[column].isin([*MISSING, "."])
    numbers = pd.to_numeric(table[column].where(present), errors="coerce")
    wrong = table.index[present & numbers.isna()]
    if len(wrong):
        raise InputError(
            f"--{option} {name}: {row_name(wrong[0])} contains {table[column][wrong[0]]!r}, which is not a number."
        )
    if not present.any():
        raise InputError(f"--{option} {name}: the column contains no number; choose another one.")
    return numbers.to_numpy(float)


def _is_vcf(source: str | Path) -> bool:
    return read_prefix(regular_file(source, WANTED, unpack=False), source).startswith(_VCF)


def _read_vcf(path: str | Path) -> pd.DataFrame:
    rows = []
    with open_vcf(path) as file:
        number_of = {name: field.number for name, field in file.header.info.items()}
        for record in vcf_records(path, file):
            for index, alternate in enumerate(record.alts or ("",)):
                info = {name: _text(value, number_of.get(name), index) for name, value in record.info.items()}
                rows.append(
                    {"chrom": record.contig, "pos": str(record.pos), "ref": record.ref, "alt": alternate, **info}
                )
    return pd.DataFrame(rows, columns=[*COLUMNS, *number_of]).fillna("")


def _text(value: Any, number: Any, index: int) -> str:
    """Convert a field of INFO to text, selecting the allele if there is a value per allele (`A` or `R`)."""
    if number in ("A", "R"):
        value = value[index + (number == "R")]
    values = value if isinstance(value, tuple) else (value,)
    return ",".join("" if part is None else str(part) for part in values)
