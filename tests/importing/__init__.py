"""Tests of natproxy.importing."""
