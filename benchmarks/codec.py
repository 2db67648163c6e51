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
        "Chunk of 64 KiB": wire.Chunk(3, 1 << 20, bytes(1 << 16)),
        "ChunkAck": wire.ChunkAck(3, 1 << 20, False, 1234.5),
        "Execute of one tensor": wire.Execute(7, 0, 12, 0.5, (pixels,)),
        "Result of four tensors": wire.Result(7, 0, 12, 0.001, 0.002, (pixels,) * 4),
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
