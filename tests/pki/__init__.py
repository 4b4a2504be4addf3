"""Tests of natproxy.pki."""
