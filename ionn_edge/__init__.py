"""The box: takes a model's graph and weights from clients, and runs ranges of its layers.

server   sockets: one aiohttp application
box      what the box has, once: store, nursery of workers, load, predictor
link     one client's connection: performs what its session asks for
session  one client's state machine, without I/O
store    weights as files, under a byte budget
engine   worker processes, seen from the event loop; `forkserver` and `worker` are those
"""
