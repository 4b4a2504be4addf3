"""Tests of natproxy.tls."""
