"""A small world of its own: pictures with exact truth, a server that misbehaves, and one command over both."""
