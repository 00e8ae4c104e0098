"""Networks of other code bases in, and our own out: safetensors and JSON, nothing executed."""
