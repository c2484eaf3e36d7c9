"""The sums over two kernel matrices of paired rows that HSIC and CKA need."""
