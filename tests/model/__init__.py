"""Executable models of the design: what a rule is for shows when it is taken away."""
