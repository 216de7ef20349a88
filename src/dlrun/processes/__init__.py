"""The processes that a run is, what reaches them from outside, and the machine that they are on."""
