"""REST, WebSockets and the dashboard, in one process that follows the log with a replica of its own."""
