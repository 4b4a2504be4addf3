"""Measurements: ratios against peers in one run, and how cost grows with routes. See docs/performance.md."""
