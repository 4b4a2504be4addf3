"""Cluster clients of other people's making, as programs that are given one address. I/O: programs.py starts them."""
