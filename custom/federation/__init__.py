"""The federation of the bundle: it trains any of its methods over sites that keep their data."""
