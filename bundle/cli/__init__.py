"""What a person types and what comes back: words, their types, errors, what a terminal can show."""
