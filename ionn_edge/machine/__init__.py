"""One client's state machine, without I/O: events and the time go in, commands come out."""
