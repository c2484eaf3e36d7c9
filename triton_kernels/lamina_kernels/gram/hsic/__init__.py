"""The sums that HSIC and CKA need."""
