"""Tests of the bench's pure parts; no test asserts a time."""
