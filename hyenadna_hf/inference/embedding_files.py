"""
Files of embeddings: Parquet, NumPy and AnnData.

All writers take the same arguments: where to write (`Path`); the parts, as a `list` of the regions of each and the
`.npy` file with their embeddings, float32, of shape `(rows, width)`; and `about`, a `dict` on how they were made. They
hold one part at a time.
"""

import importlib.util
import json
import warnings
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ..errors import InputError, WorkError
from ..jobs import parts_folder

COLUMNS = ("name", "contig", "start", "end", "strand", "length")


def check_output(path: Path, pooling: str) -> None:
    """
    Make sure that a file of embeddings can be written, before there are any.

    Args:
        path: The file.
        pooling: As in [`embed`].

    Raises:
        InputError: If the file is there already, the format has no room for an embedding of every base, or the package
            that writes it is missing.
    """
    suffix = path.suffix
    if pooling == "none" and suffix != ".parquet":
        raise InputError(f"--out {path}: with pooling none every row has another length; write to .parquet.")
    if suffix == ".h5ad" and importlib.util.find_spec("anndata") is None:
        raise InputError(f"--out {path}: the package anndata is missing; pip install 'hyenadna_hf[h5ad]'.")
    if parts_folder(path).is_dir():
        return  # of a run that may have been killed once the files were there
    for file in (path, _names_file(path)) if suffix == ".npy" else (path,):
        if file.exists():
            raise InputError(f"--out {path}: {file} is there already; delete it, or give another name.")


def write_parquet(path, parts, about) -> None:
    """
    One row a sequence and one row group a part: [`COLUMNS`], and `embedding`, a list of fixed length of float32; with
    pooling `"none"`, a list of such lists, one a base. `about` is in the metadata of the schema, as JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    every_base = about["pooling"] == "none"
    width = _width(parts)
    vector = pa.list_(pa.float32(), width)
    kinds = {"start": pa.int64(), "end": pa.int64(), "length": pa.int64()}
    fields = [(column, kinds.get(column, pa.string())) for column in COLUMNS]
    fields.append(("embedding", pa.list_(vector) if every_base else vector))
    schema = pa.schema(fields, metadata={"hyenadna": json.dumps(about)})
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["contig", "strand"]) as writer:
        for regions, file in parts:
            columns = [[getattr(region, column) for region in regions] for column in COLUMNS]
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(np.load(file).ravel()), width)
            if every_base:
                bounds = np.cumsum([0, *(region.length for region in regions)], dtype=np.int32)
                embedding = pa.ListArray.from_arrays(pa.array(bounds), embedding)
            writer.write_table(pa.table([*columns, embedding], schema=schema))


def write_npy(path, parts, about) -> None:
    """An array of shape `(sequences, width)`, float32; beside it, as `.tsv`, [`COLUMNS`] with a line for each row."""
    with open(path, "wb") as array, open(_names_file(path), "w") as names:
        shape = (sum(len(regions) for regions, _ in parts), _width(parts))
        np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": shape})
        print(*COLUMNS, sep="\t", file=names)
        for regions, file in parts:
            array.write(np.load(file).tobytes())  # `tofile` would not notice a full disk
            for region in regions:
                print(*(getattr(region, column) for column in COLUMNS), sep="\t", file=names)


def write_h5ad(path, parts, about) -> None:
    """An `AnnData` whose `X` is that of [`write_npy`], with [`COLUMNS`] in `obs` and `about` in `uns["hyenadna"]`."""
    import anndata
    import pandas as pd

    array = path.with_suffix(".npy")
    write_npy(array, parts, about)
    rows = pd.read_csv(_names_file(array), sep="\t", dtype={"name": str, "contig": "category", "strand": "category"})
    rows.index = rows["name"].to_numpy(object)
    # An ordinary array to anndata, but its content stays in the file.
    values = np.asarray(np.load(array, mmap_mode="r"))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that names are not unique; now they are
        data = anndata.AnnData(values, obs=rows, uns={"hyenadna": json.dumps(about)})
        data.obs_names_make_unique()
    data.write_h5ad(path)
    array.unlink()
    _names_file(array).unlink()


WRITERS = {".parquet": write_parquet, ".npy": write_npy, ".h5ad": write_h5ad}


def write(path, parts, about) -> None:
    """
    Write a file of embeddings by its ending, and check that it holds a row for each region, in their order.

    Raises:
        WorkError: If it does not.
    """
    for regions, file in parts:
        rows = sum(region.length for region in regions) if about["pooling"] == "none" else len(regions)
        if len(np.load(file, mmap_mode="r")) != rows:
            raise WorkError(f"{file}: a part has another number of rows than its sequences have; delete it.")
    WRITERS[path.suffix](path, parts, about)
    expected = (region.name for regions, _ in parts for region in regions)
    try:
        same = all(one == other for one, other in zip_longest(READERS[path.suffix](path), expected))
    except Exception as error:  # what readers raise of a file that was cut
        raise WorkError(f"{path.name}: it cannot be read back ({error}); is the disk full?") from error
    if not same:
        raise WorkError(f"{path.name}: its rows are not those of the sequences when it is read back; is the disk full?")


def _names_in_parquet(path):
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(columns=["name"]):
        yield from batch.column(0).to_pylist()


def _names_in_npy(path):
    rows = len(np.load(path, mmap_mode="r"))
    with open(_names_file(path), encoding="utf-8") as names:
        next(names)
        yield from (line.split("\t", 1)[0] for line, _ in zip(names, range(rows), strict=True))


def _names_in_h5ad(path):
    import anndata

    yield from anndata.read_h5ad(path, backed="r").obs["name"]


READERS = {".parquet": _names_in_parquet, ".npy": _names_in_npy, ".h5ad": _names_in_h5ad}


def _names_file(path):
    return path.with_suffix(".tsv")


def _width(parts):
    return np.load(parts[0][1], mmap_mode="r").shape[1]
