"""Devices, precision, processes, memory: computation on this machine. Import from the modules: some avoid torch."""
