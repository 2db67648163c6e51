"""The box: takes a model's graph and weights from clients, and runs ranges of its layers.

server   from a bound socket to a box that serves: `door` (connections before they are known),
         `routes` (what may be asked), `announce` (on the network)
guard    who may come in: `devices` (paired ones, in a file), `pairing_desk`, `quota`
control  the operator's socket; `questions` and `cache` are what may be asked there
box      what the box has, once: store, graphs, nursery of workers, load, predictor
link     one client's connection: performs what its session asks for, with `opening` (models)
         and `writing` (segments)
session  one client's state machine, without I/O; its uploads are `intake`
store    weights as files, under a byte budget; what is there is `holdings`, and `parts`,
         `blobs` and `leftovers` are those files
graphs   graphs that were checked before
engine   worker processes, seen from the event loop; `forkserver`, `worker`, `weights` are those
calibrate  how fast this machine runs layers: `measure` runs a `spread` of `probes` (`products`,
         `maps`) in a worker, with joules from `energy`; `calibration_table` shows it
"""
