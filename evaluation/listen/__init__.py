"""A listening test as one offline page, and what its answers say."""
