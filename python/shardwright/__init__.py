# The Python interface: compile a model into a PEF, load it on n chips, run it.
"""Shardwright compiles a model once into a PEF, a file that runs on N chips together, and runs it.

import shardwright as sw

inputs = {"input_ids": ids}
pef = sw.compile(model, inputs, pef_name="demo", tensor_parallel="weight", n_chips=4,
                 inference=True)
session = sw.load(pef)
outputs = session.run(inputs)
"""

from .errors import ShardwrightError
from .pef import Pef, compile
from .session import Session, load

__all__ = ["Pef", "Session", "ShardwrightError", "compile", "load"]
__version__ = "0.1.0"
