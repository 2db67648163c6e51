"""In how many bytes a weight's elements cross: coded as they were so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from ionn_client.machine.holdings import PLANE_BYTES, Item
from wire import DTYPE_BYTES
from wire.planes import WHOLE


@dataclass(slots=True)
class _Seen:
    coded_bytes: int = 0
    elements: int = 0

    def add(self, coded_bytes: int, elements: int) -> None:
        self.coded_bytes += coded_bytes
        self.elements += elements

    @property
    def mean(self) -> float:
        return self.coded_bytes / self.elements


class CodedSizes:
    """dtypes: each blob's. A plane of which nothing was coded yet is taken for others of its
    kind, those for raw."""

    def __init__(self, dtypes: Mapping[int, str]) -> None:
        self._dtypes = dtypes
        self._by_item: dict[Item, _Seen] = {}
        self._by_kind: dict[tuple[str, int], _Seen] = {}

    def observe(self, item: Item, coded_bytes: int, elements: int) -> None:
        """So many elements of a blob's plane were coded."""
        self._by_item.setdefault(item, _Seen()).add(coded_bytes, elements)
        self._by_kind.setdefault(self._kind(item), _Seen()).add(coded_bytes, elements)

    def expected_bytes(self, item: Item, elements: int) -> int:
        """In how many bytes so many of its elements will cross."""
        kind = self._kind(item)
        seen = self._by_item.get(item) or self._by_kind.get(kind)
        return ceil(elements * (seen.mean if seen else raw_element_bytes(*kind)))

    def _kind(self, item: Item) -> tuple[str, int]:
        blob, plane = item
        return self._dtypes[blob], plane


def raw_element_bytes(dtype: str, plane: int) -> float:
    """Bytes in which an element of a plane crosses without coding."""
    return DTYPE_BYTES[dtype] if plane == WHOLE else PLANE_BYTES[plane]
