"""One statement of the theory each."""
