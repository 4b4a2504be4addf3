"""Tests of natproxy.controller."""
