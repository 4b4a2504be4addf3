"""Tests of natproxy.doctor."""
