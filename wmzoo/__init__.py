"""wmzoo: robot world models, explicit and implicit, behind one trunk, one data set and one protocol."""

import os
from pathlib import Path

__version__ = "0.3.0"

# With two threads on two cores, a waiting thread that spins for long (the default) steals the core from whoever else runs:
# a step beside one busy process took 2.8 s by default and 0.2 s with this bound, and the same time as before alone.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_root = Path(__file__).resolve().parents[1]
if all((_root / room / "__init__.py").exists() for room in ("models", "objectives", "experiments")):
    __path__.insert(0, str(_root))  # a checkout: wmzoo.models is the folder models/ beside this one
