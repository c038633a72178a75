"""The calls that earlier programs make, each program in a module of its own; the server finds them as entry points."""
