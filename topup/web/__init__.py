"""What is given over HTTP to whoever looks: metrics, and whether it lives and watches. Reads, and asks nobody."""
