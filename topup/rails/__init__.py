"""How do dollars become something payable? One file a rail."""
