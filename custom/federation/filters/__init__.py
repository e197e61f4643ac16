"""What the wire does to a message: half precision, and privacy."""
