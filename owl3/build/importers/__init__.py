"""Other people's layouts of conversations and documents; `layouts.py` lists them."""
