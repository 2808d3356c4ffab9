"""Datacards that answer for themselves: rendered from the ledger, audited from the bytes."""
