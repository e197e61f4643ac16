"""Trains the bundle's methods over sites that keep their data."""

import bundle as bundle  # with the finder that knows the names of version 0.3
