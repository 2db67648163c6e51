"""The client's state machine, without I/O: what to send, run, answer and give up next."""
