"""The analyses that measure more of a study than its scores. `table` lists them."""
