"""What should be: ports, routes, changes, what is held back, and which live connections end. Pure.

Everything in here is a function of its arguments: no await, no socket, no clock, no logger.
"""
