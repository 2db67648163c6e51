"""A worker's weights: mapped or made in a thread beside the queries, ever more precise.

Part of the worker, and so imports torch. A query waits for a weight that it cannot do without,
and for an exact one, which is soon mapped; not for one that is being made a little better.
Exact tensors are the store's files. What is made of planes is memory of this process, which the
box counts for as much as the blob: one buffer per blob, gone as soon as a better one is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections import deque
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy
import torch

from ionn_edge.storage.places import Place
from layergraph import InvalidInput, tensor_from_weight_bytes
from layergraph.nodes import Weight
from wire.errors import LocalProtocolError
from wire.messages import PRECISIONS
from wire.planes import COARSE, MIDDLE, approximate, rounded

_MADV_POPULATE_READ = 22
_EXACT = len(PRECISIONS) - 1
_Loaded = tuple[int, torch.Tensor] | None
_Loading = tuple[int, Future[_Loaded]]


class Weights:
    """Tensors by name, each with the best precision so far; precisions are ranks in PRECISIONS.

    `own` is where files of this worker's device are, `public` where those of all devices are.
    `replaced` is called with the name of a weight whose tensor is another one now. Weights named
    in `roundable` are bfloat16 until they are exact.
    """

    def __init__(
        self,
        own: Place,
        public: Place,
        device: str,
        replaced: Callable[[str], None],
        roundable: Container[str] = (),
    ) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._own = own
        self._public = public
        self._device = device
        self._replaced = replaced
        self._roundable = roundable
        self._ranks: dict[str, int] = {}
        self._announced: dict[str, int] = {}
        self._loading: dict[str, deque[_Loading]] = {}
        # For as long as a tensor is in it: weights that are equal share theirs.
        self._rough: WeakValueDictionary[tuple[bytes, int, int, str], Any] = WeakValueDictionary()
        self._loader = ThreadPoolExecutor(1, "weights")

    def put(self, weight: Weight, tensor: torch.Tensor) -> None:
        """A weight that needs no file."""
        self._take(weight.name, (_EXACT, tensor.to(self._device)))

    def load(self, weight: Weight, precision: str, number: int) -> None:
        """What the store has of it now: a whole blob where "exact", or a part's planes."""
        rank = PRECISIONS.index(precision)
        if self._announced.get(weight.name, -1) < rank:
            self._announced[weight.name] = rank
            loading = self._loader.submit(self._loaded, weight, rank, number)
            self._loading.setdefault(weight.name, deque()).append((rank, loading))

    def rank(self, name: str, least: int) -> int | None:
        """The precision that a weight has, at least `least`; None where it has not."""
        if loading := self._loading.get(name):
            while loading and (
                self._ranks.get(name, -1) < least or loading[-1][0] == _EXACT or _is_there(loading)
            ):
                self._take(name, loading.popleft()[1].result())
            self._note_loaded(name, loading)
        rank = self._ranks.get(name, -1)
        return rank if rank >= least else None

    @property
    def loading(self) -> bool:
        """Whether tensors are being made, or are there and not taken."""
        return bool(self._loading)

    def settle(self) -> None:
        """Take what is there, though no query asks for it: what it replaces is memory."""
        for name, loading in list(self._loading.items()):
            while _is_there(loading):
                self._take(name, loading.popleft()[1].result())
            self._note_loaded(name, loading)

    def _note_loaded(self, name: str, loading: deque[_Loading]) -> None:
        if not loading:
            del self._loading[name]
            # What did not load may be announced again.
            self._announced[name] = self._ranks.get(name, -1)

    def _take(self, name: str, loaded: _Loaded) -> None:
        if loaded is None or loaded[0] <= self._ranks.get(name, -1):
            return
        known = name in self.tensors
        self._ranks[name], self.tensors[name] = loaded
        if known:
            self._replaced(name)

    def _loaded(self, weight: Weight, rank: int, number: int) -> _Loaded:
        if self._announced[weight.name] > rank:
            return None  # A better one is next.
        # A file that was evicted since, or that somebody cut short, is not there: queries say so.
        with contextlib.suppress(OSError, ValueError, InvalidInput, LocalProtocolError):
            if rank != _EXACT:
                # It became whole meanwhile, which its planes do not outlive.
                with contextlib.suppress(FileNotFoundError):
                    return rank, self._approximated(weight, number, rank).to(self._device)
            tensor = tensor_from_weight_bytes(self._whole(weight.digest), weight.spec)
            return _EXACT, tensor.to(self._device)
        return None

    def _whole(self, digest: bytes) -> memoryview:
        try:
            return mapped(self._own.blob(digest))
        except FileNotFoundError:
            return mapped(self._public.blob(digest))

    def _approximated(self, weight: Weight, number: int, rank: int) -> torch.Tensor:
        dtype = "bfloat16" if weight.name in self._roundable else weight.spec.dtype
        key = (weight.digest, number, rank, dtype)
        made = self._rough.get(key)
        if made is None:
            plane, kind = ((COARSE, "coarse"), (MIDDLE, "middle"))[rank]
            words = self._own.part(weight.digest, number, kind).read_bytes()
            made = (rounded if dtype == "bfloat16" else approximate)(plane, words).obj
            self._rough[key] = made
        return tensor_from_weight_bytes(memoryview(made), replace(weight.spec, dtype=dtype))


def _is_there(loading: deque[_Loading]) -> bool:
    return bool(loading) and loading[0][1].done()


def mapped(path: Path) -> memoryview:
    """The file's bytes, which nothing run here can change: not for others, nor for itself.

    Only memory that can be written to counts as the worker's own.
    """
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    # All pages at once, before a query has to wait for them one by one. Older kernels decline.
    with contextlib.suppress(OSError):
        mapping.madvise(_MADV_POPULATE_READ)
    # Torch copies what says that it is read-only, lest it be written to.
    address = numpy.frombuffer(mapping, numpy.uint8).ctypes.data
    memory = (ctypes.c_ubyte * len(mapping)).from_address(address)
    memory.mapping = mapping  # type: ignore[attr-defined]
    return memoryview(memory).cast("B")
