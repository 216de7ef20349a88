"""Only to be imported by the process that the jobs of a sweep are forks of (see forks.py).

A signal to a whole group, as schedulers send it, reaches the jobs by themselves; that process has to tell how they end.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
