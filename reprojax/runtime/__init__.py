"""The parts of a run below its mathematics: processes, devices, files, claims, console."""
