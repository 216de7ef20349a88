"""Only to be imported, and first, by a process that others are forks of: multiprocessing's forkserver.

A signal to a whole group, as schedulers send it, reaches the others by themselves; that process tells how they end.
"""

import signal
import sys

signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.path[:] = [path for path in sys.path if path]  # what it imports is not to be what lies in the user's folder
