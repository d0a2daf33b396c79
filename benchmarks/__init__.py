"""What the library costs and what its techniques bring, measured; each module says how it is run."""
