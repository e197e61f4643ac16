"""Gradient decoupling beyond images: text, audio and vision features of CMU-MOSI's kind."""
