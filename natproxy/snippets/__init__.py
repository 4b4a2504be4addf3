"""The lines that connect a client to a route, for each client library. Pure."""
