"""The job of one or many processes, its files, and how it starts, stops and speaks."""
