"""Codes pieces of weights and live tensors: what the driver's threads compute. Decides nothing."""

from __future__ import annotations

import time

from ionn_client.machine import events
from wire import RemoteProtocolError
from wire.activations import decode_tensor, encode_tensor
from wire.segments import encode_segment


def code_segment(command: events.CodeSegment) -> events.SegmentCoded:
    """A piece of a weight as it goes out, and the processor time it took."""
    piece, began = command.piece, time.thread_time()
    payload = encode_segment(
        command.dtype, piece.plane, command.blob, piece.start, piece.count, "planes"
    )
    return events.SegmentCoded(piece, payload, time.thread_time() - began)


def code_tensors(command: events.EncodeTensors | events.DecodeTensors) -> events.Event:
    """Live tensors as they cross, or back; what does not decode is an event too."""
    began = time.perf_counter()
    if isinstance(command, events.EncodeTensors):
        tensors = tuple(encode_tensor(tensor, command.coding) for tensor in command.tensors)
        return events.TensorsEncoded(command.query, tensors, time.perf_counter() - began)
    try:
        tensors = tuple(map(decode_tensor, command.tensors))
    except RemoteProtocolError as error:
        return events.TensorsUndecodable(command.query, f"the edge broke the protocol: {error}")
    return events.TensorsDecoded(command.query, tensors, time.perf_counter() - began)
