"""The pass over a service: selection, plan, prices, ledger, limits, delivery, batches, and the files made of the replies."""
