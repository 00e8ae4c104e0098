"""What the solver's own error changes in a closed form."""
