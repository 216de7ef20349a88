"""Ways to train a network better or at less cost, which a task may use, each in a module of its own."""
