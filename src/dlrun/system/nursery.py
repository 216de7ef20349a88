"""Only to be imported, and first, by a process that others are forks of: multiprocessing's forkserver.

A signal to a whole group, as schedulers and terminals send it, reaches the others by themselves; that process tells how
they end. It blocks the signals instead of ignoring them: one that reaches a fork before the fork is ready for it waits
there, and every fork, of whosever making, has to unblock them. A shell lets what it starts in the background ignore
SIGINT; forkserver would give that back to its forks, and throw away what waits.
"""

import logging
import signal
import sys

from dlrun.system.signals import ASKING

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its caches are no user's concern
sys.path[:] = [path for path in sys.path if path]  # what it imports is not to be what lies in the user's folder
