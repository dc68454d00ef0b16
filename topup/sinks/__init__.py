"""Where do events go? One file a destination; each takes whole events and never raises."""
