"""A Debian machine in the guide's network, on which natproxy is a service: `make test-system`."""
