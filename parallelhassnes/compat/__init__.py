"""The calls that earlier programs make, each program in a module of its own; nothing else knows of them."""
