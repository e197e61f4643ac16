"""What a case is: the datalist, file names, checks, gaps and sites."""
