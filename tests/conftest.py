"""What holds for all tests.

Random tests repeat, and have no deadline on a busy machine; nothing is compiled twice.
"""

import os
import sys

from hypothesis import settings

# Servers are started some hundred times. Compiled anew each time, a start takes twice as long.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("default", deadline=None)
# In CI a failure must be the change's fault, and not of a new draw.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")
