"""Faults made on purpose in a scratch deployment of its own, and the proof that nothing is lost."""
