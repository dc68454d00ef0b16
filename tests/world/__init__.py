"""What plays the world for tests, and tests of that."""
