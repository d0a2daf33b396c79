"""The Dirac-GAN: one number against another."""
