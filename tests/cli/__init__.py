"""Tests of natproxy.cli."""
