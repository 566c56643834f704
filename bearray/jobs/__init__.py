"""Sweeps that run as Ray jobs, seen from the machine that submitted them: what Ray's own command line
leaves out."""
