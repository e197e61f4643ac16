"""What a site and the server must agree on: what is sent, and how it is written."""
