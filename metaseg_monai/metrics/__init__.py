"""Pure numbers: counts and masks to scores, intervals and tests."""
