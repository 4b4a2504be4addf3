"""``python -m bench [relay] [routes] [tls]``: run these (all, where none is named) and print their tables."""

from __future__ import annotations

import sys

from bench import relay, routes, tls

PARTS = {"relay": relay.main, "routes": routes.main, "tls": tls.main}


def main() -> int:
    names = sys.argv[1:] or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"python -m bench: no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    return max(PARTS[name]() for name in names)


if __name__ == "__main__":
    raise SystemExit(main())
