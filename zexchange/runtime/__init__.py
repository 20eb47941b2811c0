"""Running an exchange on a machine: folders, processes, the store, and the supervisor over all of them."""
