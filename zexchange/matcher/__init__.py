"""The matcher: one shard's engine between the ingress workers and the log."""
