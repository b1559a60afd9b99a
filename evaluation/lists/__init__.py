"""Lists of items: one reader per layout."""
