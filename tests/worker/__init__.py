"""Tests of natproxy.worker."""
