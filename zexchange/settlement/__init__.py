"""Settlement: follows the log with replicas, signs checkpoints, and keeps snapshots, archive and store in order."""
