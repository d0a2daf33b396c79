"""Types, files and text that every room may use. Import from the modules: some of them must not wait for torch."""
