"""From a loss to new weights: optimizers, schedules, clipping, averaged weights."""
