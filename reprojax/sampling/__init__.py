"""The noise bank, the solvers and probability-flow sampling."""
