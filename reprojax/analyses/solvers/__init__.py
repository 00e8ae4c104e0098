"""How many evaluations a solver needs."""
