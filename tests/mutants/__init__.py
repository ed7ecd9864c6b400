"""Deliberate protocol faults, and the workloads that must notice them."""
