"""What does it cost? Measurements that print figures and never fail for being slow."""
