"""Networks, one in each file; federations and weight files refer to parameters by their names."""
