"""The tests mirror natproxy one to one; network/ and scenarios/ run the real thing."""
