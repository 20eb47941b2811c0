"""What proves things: trees, notes, checkpoints, snapshots, replicas, and the verifier that redoes everything."""
