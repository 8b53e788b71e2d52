"""Networks: what you would draw as a box.  No loss, no data."""
