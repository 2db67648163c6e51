"""How many messages one core encodes and decodes: chunks and acknowledgements at > 50,000/s.

`python benchmarks/codec.py`: one line per message, the best of five runs each way.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import wire

COUNT = 20_000
RUNS = 5


def messages() -> dict[str, wire.Message]:
    pixels = wire.Tensor("float32", (1, 3, 224, 224), (0, 2, 3, 1), bytes(4 * 3 * 224 * 224))
    return {
        "Segment": wire.Segment(3, wire.COARSE, 1 << 20, 1 << 15, "planes", 27_000),
        "Chunk of 64 KiB": wire.Chunk(bytes(1 << 16)),
        "ChunkAck": wire.ChunkAck(1234.5),
        "Held": wire.Held(3, wire.COARSE, 1 << 20, False),
        "Execute of one tensor": wire.Execute(7, 0, 12, 0.5, "exact", "raw", (pixels,)),
        "Result of four tensors": wire.Result(7, 0, 12, "exact", 0.001, 0.0, 0.002, (pixels,) * 4),
        "Pong": wire.Pong(1, 1234.5),
    }


def rate(work: Callable[[], object]) -> float:
    """Calls per second, the best of RUNS."""
    best_s = float("inf")
    for _ in range(RUNS):
        began = time.perf_counter()
        for _ in range(COUNT):
            work()
        best_s = min(best_s, time.perf_counter() - began)
    return COUNT / best_s


def main() -> None:
    encoder, decoder = wire.Encoder(), wire.Decoder()
    print(f"{'messages per second':24}{'encode':>12}{'decode':>12}")
    for name, message in messages().items():
        frames = encoder.encode(message)

        def decode(frames: list[bytes | memoryview] = frames) -> None:
            for frame in frames:
                decoder.feed(frame)

        encoded = rate(lambda message=message: encoder.encode(message))  # type: ignore[misc]
        print(f"{name:24}{encoded:>12,.0f}{rate(decode):>12,.0f}")


if __name__ == "__main__":
    main()
