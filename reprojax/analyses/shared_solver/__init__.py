"""Agreement with native samplers and with one solver for all."""
