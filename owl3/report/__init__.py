"""Static pages about a workspace: no server, no external request."""
