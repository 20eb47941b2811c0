"""The execution log: its format, its one writer, its readers, and its archive in files."""
