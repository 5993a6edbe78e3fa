"""Where and how a process computes: strategy, workers, signals, XLA and threads."""
