"""GMD: the method, gradient decoupling, and which modalities dominate."""
