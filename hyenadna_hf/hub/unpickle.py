"""Tensors out of pickled checkpoints, without running any code of theirs."""

import io
import pickle
import struct
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict

import torch

from ..errors import InputError

# What may be called while unpickling: it builds tensors and containers, and nothing else.
BUILDERS = {
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
# Of the structure alone, in bytes; tensors are beside it.
LARGEST_PICKLE = 100_000_000
# Trainers pickle such objects along with the weights. A call of theirs gives an inert object.
BYSTANDERS: tuple[str, ...] = (
    "argparse",
    "collections",
    "functools",
    "lightning",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
)
BYSTANDERS += ("torchmetrics", "typing")


class Inert:
    """Stands for an object of a class that is not loaded: takes state, does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.state = state

    # Containers are filled through these.
    def append(self, item):
        pass

    def extend(self, items):
        pass

    def __setitem__(self, key, value):
        pass

    def __hash__(self):
        return id(self)


class _Refusing(type):
    """A class whose instances pickle may make (`NEWOBJ`), but which must not be called (`REDUCE`)."""

    def __call__(cls, *args, **kwargs):
        raise pickle.UnpicklingError(f"it calls {cls.__module__}.{cls.__name__}")


class TensorUnpickler(pickle.Unpickler):
    """
    Builds tensors and plain containers; objects of any other class become [`Inert`].

    Raises:
        pickle.UnpicklingError: if the pickle calls anything besides, or names a global of the standard library.
    """

    def __init__(self, file, read_storage):
        super().__init__(file)
        self.read_storage = read_storage

    def find_class(self, module, name):
        # Names of Python 2, in which torch.save writes.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        if (module, name) in BUILDERS:
            return BUILDERS[module, name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        top = module.partition(".")[0]
        if top in BYSTANDERS:
            return type(name, (Inert,), {"__module__": module})
        if top in sys.stdlib_module_names or "." in name:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _Refusing(name, (Inert,), {"__module__": module})

    def persistent_load(self, reference):
        kind, dtype, key, _, count = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it refers to {reference[:2]!r} and not to the storage of a tensor")
        storage = self.read_storage(str(key), count * dtype.itemsize).untyped_storage()
        return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def load_pickled(path):
    """
    Read what `torch.save` wrote in its zip format: a state dict, a training checkpoint, or a whole module.

    No code in the file, and no class that it names, is loaded or run.

    Args:
        path (`Path`): The file.

    Returns:
        `tuple`: what was saved, where modules are [`Inert`] objects, and a list of remarks (`list[str]`).

    Raises:
        InputError: if the file is damaged, or its pickle does anything but building tensors.
    """
    remarks = []
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            (record,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            folder = record.removesuffix("data.pkl")
            byteorder = f"{folder}byteorder"
            if byteorder in archive.namelist() and archive.read(byteorder) != b"little":
                raise InputError(f"{path}: it was written on a big-endian machine; save it anew with safetensors.")
            if archive.getinfo(record).file_size > LARGEST_PICKLE:
                raise InputError(
                    f"{path}: its pickle is larger than {LARGEST_PICKLE:,} bytes, which no checkpoint needs."
                )
            try:
                data = archive.read(record)
            except zipfile.BadZipFile:
                data = _read_stored(raw, archive.getinfo(record))
                remarks.append("data.pkl has a wrong checksum; it was read all the same, its tensors' checksums hold")

            def read_storage(key, size):
                info = archive.getinfo(f"{folder}data/{key}")
                if info.file_size != size:
                    raise pickle.UnpicklingError(f"storage {key} has {info.file_size:,} bytes instead of {size:,}")
                content = archive.read(info)
                return torch.frombuffer(bytearray(content), dtype=torch.uint8) if size else torch.empty(0).byte()

            return TensorUnpickler(io.BytesIO(data), read_storage).load(), remarks
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: the pickle is refused: {error}. Nothing of it was run.") from error
    except Exception as error:  # a damaged pickle fails in many ways
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable PyTorch file ({type(error).__name__}: {reason}).") from error


def _read_stored(raw, info):
    """The bytes of an uncompressed member, whatever its checksum says."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"{info.filename} is compressed and has a wrong checksum")
    raw.seek(info.header_offset)
    header = raw.read(30)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    raw.seek(name_length + extra_length, io.SEEK_CUR)
    return raw.read(info.file_size)


def module_tensors(module, prefix=""):
    """
    The state dict of a module that `load_pickled` gave: its parameters and persistent buffers by name.

    Args:
        module ([`Inert`]): The module.
        prefix (`str`, *optional*): Put before each name.

    Returns:
        `dict[str, torch.Tensor]`; empty if `module` is no module.
    """
    state = getattr(module, "state", None)
    if not isinstance(state, dict) or "_parameters" not in state:
        return {}
    transient = state.get("_non_persistent_buffers_set", ())
    own = {**state["_parameters"], **{k: v for k, v in state.get("_buffers", {}).items() if k not in transient}}
    tensors = {f"{prefix}{name}": value for name, value in own.items() if isinstance(value, torch.Tensor)}
    for name, child in state.get("_modules", {}).items():
        tensors.update(module_tensors(child, f"{prefix}{name}."))
    return tensors
