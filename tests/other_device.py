"""
A device that is not there: tensors that say they are on it, and are computed on the CPU.

Operations whose tensors are on two devices are refused, as on a GPU, but for the few that PyTorch allows. So the code
for GPUs runs where there is none, and what it gives can be compared. PyTorch knows the device until the process ends.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class Module(_DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("elsewhere", Module())
ELSEWHERE = torch.device("elsewhere", 0)
CPU = torch.device("cpu")
aten = torch.ops.aten
COPIES = {aten.copy_, aten._to_copy}  # from one device to another
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}  # indices may be on the CPU
# Views that conjugate or negate when they are read are not read so below this level.
RESOLVED = {aten._conj.default: aten._conj_physical.default, aten._neg_view.default: aten.neg.default}


class ElsewhereTensor(torch.Tensor):
    """A tensor on the device whose numbers are those of `on_cpu`."""

    @staticmethod
    def __new__(cls, on_cpu):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            on_cpu.shape,
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=ELSEWHERE,
        )

    def __init__(self, on_cpu):
        self.on_cpu = on_cpu

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


class Device(TorchDispatchMode):
    """Within it, tensors can be made on the device and moved there."""

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes them on the CPU, then moves them
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


def run(function, args, kwargs):
    function = RESOLVED.get(function, function)
    packet = function.overloadpacket
    elsewhere = {
        id(tensor.on_cpu): tensor for tensor in tensors_in(args, kwargs) if isinstance(tensor, ElsewhereTensor)
    }
    same_device = (args[:1], args[2:]) if packet in INDEXING else (args, kwargs)
    here = [tensor for tensor in tensors_in(*same_device) if not isinstance(tensor, ElsewhereTensor) and tensor.ndim]
    if elsewhere and here and packet not in COPIES:
        raise RuntimeError(f"{function}: some tensors are on {ELSEWHERE}, others on the CPU")
    if kwargs.get("device") is not None:
        goal = torch.device(kwargs["device"])
        kwargs = kwargs | {"device": CPU}
    else:
        goal = args[0].device if packet is aten.copy_ else ELSEWHERE if elsewhere else CPU

    def unwrap(value):
        return value.on_cpu if isinstance(value, ElsewhereTensor) else value

    def wrap(value):
        # What is changed in place stays the same object.
        return elsewhere.get(id(value), ElsewhereTensor(value)) if isinstance(value, torch.Tensor) else value

    result = function(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    return tree_map(wrap, result) if goal == ELSEWHERE else result


def tensors_in(*values):
    return [value for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]
