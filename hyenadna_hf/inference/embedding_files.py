"""
Write embeddings to Parquet, NumPy and AnnData files.

All writers take the same arguments: the output path; the parts, as a list of pairs of regions and the `.npy` file with
their embeddings (float32, shape `(rows, width)`); and `metadata`, a dictionary on their origin. They hold one part in
memory at a time.
"""

import importlib.util
import json
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, WorkError
from ..jobs import parts_folder

COLUMNS = ("name", "chrom", "start", "end", "strand", "length")
Parts = list[tuple[list[Any], Path]]  # regions, and the file with their embeddings


def check_output(path: Path, pooling: str) -> None:
    """
    Check that a file of embeddings can be written, before any embeddings are computed.

    Args:
        path: Output file.
        pooling: Pooling as in [`embed`].

    Raises:
        InputError: If the file exists, the format does not support an embedding of every base, or the required package
            is missing.
    """
    suffix = path.suffix
    if pooling == "none" and suffix != ".parquet":
        raise InputError(f"--out {path}: with pooling none, rows differ in length; write to .parquet.")
    if suffix == ".h5ad" and importlib.util.find_spec("anndata") is None:
        raise InputError(f"--out {path}: the package anndata is missing; pip install 'hyenadna_hf[h5ad]'.")
    if parts_folder(path).is_dir():
        return  # from a run that may have been killed after it had installed the files
    for file in (path, _names_file(path)) if suffix == ".npy" else (path,):
        if file.exists():
            raise InputError(f"--out {path}: {file} already exists; delete it or choose another name.")


def write_parquet(path: Path, parts: Parts, metadata: dict[str, Any]) -> None:
    """
    Write one row per sequence and one row group per part, with [`COLUMNS`] and `embedding`, a fixed-size list of
    float32; with pooling `"none"`, a list of such lists, one per base. The schema contains `metadata` as JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    every_base = metadata["pooling"] == "none"
    width = _width(parts)
    vector = pa.list_(pa.float32(), width)
    types = {"start": pa.int64(), "end": pa.int64(), "length": pa.int64()}
    fields = [(column, types.get(column, pa.string())) for column in COLUMNS]
    fields.append(("embedding", pa.list_(vector) if every_base else vector))
    schema = pa.schema(fields, metadata={"hyenadna": json.dumps(metadata)})
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["chrom", "strand"]) as writer:
        for regions, file in parts:
            columns = [[getattr(region, column) for region in regions] for column in COLUMNS]
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(np.load(file).ravel()), width)
            if every_base:
                bounds = np.cumsum([0, *(region.length for region in regions)], dtype=np.int32)
                embedding = pa.ListArray.from_arrays(pa.array(bounds), embedding)
            writer.write_table(pa.table([*columns, embedding], schema=schema))


def write_npy(path: Path, parts: Parts, metadata: dict[str, Any]) -> None:
    """
    Write an array of shape `(sequences, width)`, float32, and beside it a `.tsv` file with [`COLUMNS`] of each row.
    """
    with open(path, "wb") as array, open(_names_file(path), "w") as names:
        shape = (sum(len(regions) for regions, _ in parts), _width(parts))
        np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": shape})
        print(*COLUMNS, sep="\t", file=names)
        for regions, file in parts:
            array.write(np.load(file).tobytes())  # `tofile` would miss a full disk
            for region in regions:
                print(*(getattr(region, column) for column in COLUMNS), sep="\t", file=names)


def write_h5ad(path: Path, parts: Parts, metadata: dict[str, Any]) -> None:
    """
    Write an `AnnData` with the array of [`write_npy`] as `X`, [`COLUMNS`] in `obs`, and `metadata` in
    `uns["hyenadna"]`.
    """
    import anndata
    import pandas as pd

    array = path.with_suffix(".npy")
    write_npy(array, parts, metadata)
    rows = pd.read_csv(_names_file(array), sep="\t", dtype={"name": str, "chrom": "category", "strand": "category"})
    rows.index = rows["name"].to_numpy(object)
    # anndata sees an ordinary array, but its content stays in the file.
    values = np.asarray(np.load(array, mmap_mode="r"))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # names are made unique below
        data = anndata.AnnData(values, obs=rows, uns={"hyenadna": json.dumps(metadata)})
        data.obs_names_make_unique()
    data.write_h5ad(path)
    array.unlink()
    _names_file(array).unlink()


WRITERS = {".parquet": write_parquet, ".npy": write_npy, ".h5ad": write_h5ad}


def write(path: Path, parts: Parts, metadata: dict[str, Any]) -> None:
    """
    Write a file of embeddings in the format of its suffix, and check that it has a row for each region, in order.

    Raises:
        WorkError: If the file is incomplete or wrong.
    """
    for regions, file in parts:
        rows = sum(region.length for region in regions) if metadata["pooling"] == "none" else len(regions)
        if len(np.load(file, mmap_mode="r")) != rows:
            raise WorkError(f"{file}: the number of rows does not match the sequences; delete this part.")
    WRITERS[path.suffix](path, parts, metadata)
    expected = (region.name for regions, _ in parts for region in regions)
    try:
        is_complete = all(name == other for name, other in zip_longest(READERS[path.suffix](path), expected))
    except Exception as error:  # readers raise many types for a truncated file
        raise WorkError(f"{path.name}: the file cannot be read back ({error}); check the free disk space.") from error
    if not is_complete:
        raise WorkError(
            f"{path.name}: the rows that were read back do not match the sequences; check the free disk space."
        )


def _names_in_parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(columns=["name"]):
        yield from batch.column(0).to_pylist()


def _names_in_npy(path: Path) -> Iterator[str]:
    rows = len(np.load(path, mmap_mode="r"))
    with open(_names_file(path), encoding="utf-8") as names:
        next(names)
        yield from (line.split("\t", 1)[0] for line, _ in zip(names, range(rows), strict=True))


def _names_in_h5ad(path: Path) -> Iterator[str]:
    import anndata

    yield from anndata.read_h5ad(path, backed="r").obs["name"]


READERS = {".parquet": _names_in_parquet, ".npy": _names_in_npy, ".h5ad": _names_in_h5ad}


def _names_file(path: Path) -> Path:
    return path.with_suffix(".tsv")


def _width(parts: Parts) -> int:
    return np.load(parts[0][1], mmap_mode="r").shape[1]
