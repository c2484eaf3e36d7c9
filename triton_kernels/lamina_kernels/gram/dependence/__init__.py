"""How far paired representations depend on each other: HSIC, CKA, distance covariance and correlation."""
