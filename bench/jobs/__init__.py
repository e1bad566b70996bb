"""Batch runs: throughput, memory, hostile input."""
