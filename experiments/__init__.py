"""Arms: one file is one comparable configuration, a function that returns an Experiment."""
