"""Byte-compiles natproxy and the tests, and imports every module of natproxy, with the Python that runs it."""

import compileall
import importlib
import pkgutil
import re
import sys
from pathlib import Path

root = Path(__file__).parents[1]
sys.path.insert(0, str(root))
not_ours = re.compile(r"node_modules")
compiled = [compileall.compile_dir(root / name, quiet=1, force=True, rx=not_ours) for name in ("natproxy", "tests")]
package = importlib.import_module("natproxy")
for module in pkgutil.walk_packages(package.__path__, "natproxy."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
sys.exit(not all(compiled))
