"""Coding agents' command lines: ``cli`` says what one is, ``codex``, ``claude`` and ``template`` are those there are.

``ask.ask`` runs one once and reads what came of it; it is all that others (the analyses) need.
"""
