"""The checks of `make check-fast`; tools/check.py runs them."""
