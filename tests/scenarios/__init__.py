"""What an operator and a developer live through, played with the real process, real caches and real clients."""
