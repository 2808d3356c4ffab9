"""Curation: URL tables in, shards out, and a reason for every row that is missing."""
