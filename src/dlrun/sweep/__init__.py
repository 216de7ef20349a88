"""Sweeps and searches: their jobs, how the jobs are run, and their results.

Called, `dlrun.sweep("seed=0,1,2")` runs one: see dlrun/api.
"""

import sys

from dlrun.call import CallablePackage

sys.modules[__name__].__class__ = CallablePackage
