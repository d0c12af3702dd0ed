"""What a training step does, seen from its tensor operations: operations, bytes moved, and the peak of bytes alive."""
from __future__ import annotations

import weakref
from math import prod

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.flop_counter import flop_registry


class StepMeter(TorchDispatchMode):
    """Counts while it is open; tensors may be on the meta device, where nothing is computed or allocated.

    flops: of convolutions and matrix products, as torch counts them.
    moved: bytes that all operations read and write, each tensor once per operation; views and new memory move nothing.
    peak: the largest number of bytes that storages made since then (views apart) held at one time. An allocator on the
        device sees the same, plus what an operation takes for itself while it runs.
    """

    def __init__(self):
        super().__init__()
        self.flops = self.moved = self.live = self.peak = 0
        self._known: weakref.WeakValueDictionary = weakref.WeakValueDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = _without_computing(function, args, kwargs)
        if function._overloadpacket in flop_registry:
            self.flops += flop_registry[function._overloadpacket](*args, **kwargs, out_val=result)
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if not (function.is_view or "empty" in function.name()):
            read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            self.moved += sum(t.element_size() * prod(t.shape) for t in (*read, *made))
        for tensor in made:
            self._note(tensor)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        size = storage.nbytes()
        self._known[storage._cdata] = storage
        weakref.finalize(storage, self._freed, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _freed(self, size: int) -> None:
        self.live -= size


_RESULTS: dict[tuple, tuple] = {}  # (function, what it is given): its results as (shape, stride, type), and their form


def _without_computing(function, args: tuple, kwargs: dict):
    """What `function` returns; on the meta device repeated calls are looked up, as torch takes milliseconds to tell.

    Only for functions that neither write to nor return any of what they are given, and return new tensors alone.
    """
    if any(a.alias_info for a in (*function._schema.arguments, *function._schema.returns)):
        return function(*args, **kwargs)
    leaves, form = tree_flatten((args, kwargs))
    if not any(isinstance(leaf, Tensor) for leaf in leaves) or any(
            isinstance(leaf, Tensor) and leaf.device.type != "meta" for leaf in leaves):
        return function(*args, **kwargs)
    # what a function is called with, apart from contents, which meta tensors lack
    key = (function, form, *((tuple(x.shape), x.stride(), x.dtype) if isinstance(x, Tensor) else (type(x), x)
                             for x in leaves))
    if key not in _RESULTS:
        result = function(*args, **kwargs)
        if not all(t is None or (type(t) is Tensor and t.device.type == "meta") for t in tree_leaves(result)):
            return result
        made, shape = tree_flatten(result)
        _RESULTS[key] = ([t if t is None else (tuple(t.shape), t.stride(), t.dtype) for t in made], shape)
        return result
    made, shape = _RESULTS[key]
    return tree_unflatten([t and torch.empty_strided(t[0], t[1], dtype=t[2], device="meta") for t in made], shape)


def held(tensors) -> int:
    """Bytes of tensors, each counted once."""
    return sum(t.element_size() * t.numel() for t in tensors)
