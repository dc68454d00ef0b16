"""Who signs? One file a kind of key. Each accepts a planned payment of a verified charge and nothing else."""
