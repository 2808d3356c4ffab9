"""One module per public corpus; `owl3/curate/sources/corpus.py` reads them."""
