"""The noise bank, the condition bank, and sampling with the solvers of `solvers`."""
