"""The commands for finished runs and for data sets: dl-runs and dl-data.

Called, `dlrun.runs("outputs")` lists runs: see dlrun/api.
"""

import sys

from dlrun.call import CallablePackage

sys.modules[__name__].__class__ = CallablePackage
