"""One runnable module per claim that the README makes; results lie in ``benchmarks/results/``."""
