"""LCKD: the method, the election of teachers, and the record of elections."""
