"""Nouns and text that every room may use. Import from the files: some of them must not wait for torch."""
