"""What holds for all tests: random tests repeat, and have no deadline on a busy machine."""

import os

from hypothesis import settings

settings.register_profile("default", deadline=None)
# In CI a failure must be the change's fault, and not of a new draw.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")
