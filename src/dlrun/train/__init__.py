"""One run: from a checked config to trained weights, checkpoints and a summary. Start with engine.py.

Called, `dlrun.train("model=lenet", "data=mnist")` trains a run: see dlrun/api.
"""

import sys

from dlrun.call import CallablePackage

sys.modules[__name__].__class__ = CallablePackage
