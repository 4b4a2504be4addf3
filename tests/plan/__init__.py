"""Tests of natproxy.plan."""
