"""``python -m natproxy``. I/O: hands over to cli."""

from natproxy.cli import main

if __name__ == "__main__":
    main()
