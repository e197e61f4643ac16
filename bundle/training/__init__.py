"""What drives a method: the data sets, one iteration, and the files that a training leaves."""
