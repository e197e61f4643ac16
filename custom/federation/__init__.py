"""The federation of the bundle: it trains any of its methods over sites that keep their data."""

import bundle as bundle  # with the finder that knows the names of version 0.3
