"""Benchmarks: one module per `make bench-<name>`, results recorded under `bench/results/`."""
