"""Networks, one a file; their parameter names are what federations and weight files go by."""
