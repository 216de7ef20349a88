"""Prepare multiprocessing's forkserver to fork job processes. Only the forkserver imports this, first of all.

Schedulers and terminals signal a whole process group, so that signals reach the forks directly; the forkserver must
survive to report how they end. It blocks signals instead of ignoring them: a signal that arrives before a fork is ready
stays pending there, and each fork has to unblock them. SIGINT is set to its default first because shells start
background processes with SIGINT ignored, and forkserver would restore that in its forks, which drops pending signals.
"""

import logging
import signal
import sys

from dlrun.system.signals import STOPPING

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # messages about its caches do not concern the user
sys.path[:] = [path for path in sys.path if path]  # do not import modules from the working folder
