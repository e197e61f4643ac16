"""Published splits and masks as datalists: which case is in which section, and what it lacks."""
