"""A BERT encoder in 16-bit integers, for CPUs that multiply these faster than float32 and know no bfloat16."""
