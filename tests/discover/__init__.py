"""Tests of natproxy.discover."""
