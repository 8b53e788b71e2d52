"""wmzoo: robot world models, explicit and implicit, behind one trunk, one data set and one protocol."""

from pathlib import Path

__version__ = "0.1.0"

_root = Path(__file__).resolve().parents[1]
if all((_root / room / "__init__.py").exists() for room in ("models", "objectives", "experiments")):
    __path__.insert(0, str(_root))  # a checkout: wmzoo.models is the folder models/ beside this one
