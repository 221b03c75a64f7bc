"""Reader of tensors in pickled checkpoints that runs none of their code."""

import io
import pickle
import struct
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import InputError

# Functions that unpickling may call: they build tensors and containers, and nothing else.
BUILDERS: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): lambda data, requires_grad, hooks: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, requires_grad, hooks, state: data,
}
STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
# Size of the structure in bytes, without tensors, which are stored next to it.
LARGEST_PICKLE = 100_000_000
# Packages whose objects trainers pickle along with the weights. Calling them creates an inert object.
INERT_PACKAGES = (
    "argparse",
    "collections",
    "functools",
    "lightning",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "torchmetrics",
    "typing",
)


class Inert:
    """Stand-in for an object of a class that is not loaded: it accepts state and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    # Methods that fill containers.
    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


class _NotCallable(type):
    """Metaclass of classes that pickle may instantiate (`NEWOBJ`) but not call (`REDUCE`)."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise pickle.UnpicklingError(f"it calls {cls.__module__}.{cls.__name__}")


class TensorUnpickler(pickle.Unpickler):
    """
    Unpickler of tensors and plain containers; objects of any other class become [`Inert`].

    Args:
        file: Binary file with the pickle.
        read_storage: Returns the bytes of a storage, given its key and its size in bytes, as a `torch.uint8` tensor.

    Raises:
        pickle.UnpicklingError: If the pickle calls anything else, or names a global of the standard library.
    """

    def __init__(self, file: IO[bytes], read_storage: Callable[[str, int], torch.Tensor]) -> None:
        super().__init__(file)
        self.read_storage = read_storage

    def find_class(self, module: str, name: str) -> Any:
        # torch.save writes the names of Python 2.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if (module, name) in BUILDERS:
            return BUILDERS[module, name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        top = module.partition(".")[0]
        if top in INERT_PACKAGES:
            return type(name, (Inert,), {"__module__": module})
        if top in sys.stdlib_module_names or "." in name:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _NotCallable(name, (Inert,), {"__module__": module})

    def persistent_load(self, reference: Any) -> Any:
        kind, dtype, key, _, count = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it refers to {reference[:2]!r} instead of the storage of a tensor")
        storage = self.read_storage(str(key), count * dtype.itemsize).untyped_storage()
        return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def load_pickled(path: Path) -> tuple[Any, list[str]]:
    """
    Read a file that `torch.save` wrote in its zip format: a state dict, a training checkpoint, or a whole module.

    No code in the file, and no class that it names, is loaded or run.

    Args:
        path: The file.

    Returns:
        The saved object, in which modules are [`Inert`] objects, and a list of remarks.

    Raises:
        InputError: If the file is damaged, or its pickle does anything but build tensors.
    """
    remarks: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            (record,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            folder = record.removesuffix("data.pkl")
            byteorder = f"{folder}byteorder"
            if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
                raise InputError(f"{path}: written on a big-endian machine; save it again with safetensors.")
            if archive.getinfo(record).file_size > LARGEST_PICKLE:
                raise InputError(
                    f"{path}: its pickle is larger than {LARGEST_PICKLE:,} bytes, which no checkpoint needs."
                )
            try:
                data = archive.read(record)
            except zipfile.BadZipFile:
                data = _read_stored(raw, archive.getinfo(record))
                remarks.append(
                    "data.pkl has a wrong checksum, which was ignored; the checksums of the tensors are right"
                )

            def read_storage(key: str, size: int) -> torch.Tensor:
                info = archive.getinfo(f"{folder}data/{key}")
                if info.file_size != size:
                    raise pickle.UnpicklingError(f"storage {key} has {info.file_size:,} bytes instead of {size:,}")
                content = archive.read(info)
                return torch.frombuffer(bytearray(content), dtype=torch.uint8) if size else torch.empty(0).byte()

            return TensorUnpickler(io.BytesIO(data), read_storage).load(), remarks
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: the pickle is refused: {error}. No code was run.") from error
    except Exception as error:  # a damaged pickle fails in many ways
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable PyTorch file ({type(error).__name__}: {reason}).") from error


def _read_stored(raw: IO[bytes], info: zipfile.ZipInfo) -> bytes:
    """Read an uncompressed member, ignoring its checksum."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"{info.filename} is compressed and has a wrong checksum")
    raw.seek(info.header_offset)
    header = raw.read(30)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    raw.seek(name_length + extra_length, io.SEEK_CUR)
    return raw.read(info.file_size)


def module_tensors(module: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """
    Collect the state dict of a module that `load_pickled` returned: its parameters and persistent buffers by name.

    Args:
        module: The [`Inert`] module.
        prefix: Prefix of each name.

    Returns:
        Tensors by name; empty if `module` is not a module.
    """
    state = getattr(module, "state", None)
    if not isinstance(state, dict) or "_parameters" not in state:
        return {}
    transient = state.get("_non_persistent_buffers_set", ())
    persistent = {**state["_parameters"], **{k: v for k, v in state.get("_buffers", {}).items() if k not in transient}}
    tensors = {f"{prefix}{name}": value for name, value in persistent.items() if isinstance(value, torch.Tensor)}
    for name, child in state.get("_modules", {}).items():
        tensors.update(module_tensors(child, f"{prefix}{name}."))
    return tensors
