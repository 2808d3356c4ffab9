"""In what order: thin Prefect wiring over the library. No logic lives here."""
