"""GANs of points in the plane."""
