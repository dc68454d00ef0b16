"""One pass, and the life of one top-up."""
