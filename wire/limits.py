"""Hard limits on everything that a message declares. Knows only numbers."""

from __future__ import annotations

from dataclasses import dataclass

MAX_COUNT = (1 << 63) - 1
MAX_WEIGHT_BYTES = 1 << 40
MAX_PLANE = 3
MAX_LAYER = 1_000_000
MAX_VERSION = 65_535
MAX_THREADS = 65_535


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side accepts, and what it lets itself send.

    All are inclusive. `message` counts the header and every buffer; `text` is an Error's text;
    `name` every other string; `plain` the nested data of Welcome's predictor.
    """

    max_header_bytes: int = 1 << 20
    max_message_bytes: int = 64 << 20
    max_buffer_bytes: int = 64 << 20
    max_chunk_bytes: int = 1 << 20
    max_segment_bytes: int = 1 << 20
    max_graph_bytes: int = 16 << 20
    max_tensors: int = 256
    max_rank: int = 16
    max_weights: int = 65_536
    max_models: int = 1_024
    max_name_bytes: int = 256
    max_text_bytes: int = 4_096
    max_plain_items: int = 16_384
    max_plain_depth: int = 8

    @property
    def max_frame_bytes(self) -> int:
        """The longest single frame: what the transport's own message limit is set to."""
        return max(self.max_header_bytes, min(self.max_message_bytes, self._longest_buffer_bytes()))

    def _longest_buffer_bytes(self) -> int:
        return max(self.max_buffer_bytes, self.max_chunk_bytes, self.max_graph_bytes)


DEFAULT_LIMITS = Limits()
