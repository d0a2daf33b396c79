"""How the same numbers are computed here. Import from the files: some of them must not wait for torch."""
