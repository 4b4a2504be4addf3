"""Tests of natproxy.netfilter."""
