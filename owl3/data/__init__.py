"""From sample indexes to batches: mixture → plan → encode → pack → collate → loader."""
