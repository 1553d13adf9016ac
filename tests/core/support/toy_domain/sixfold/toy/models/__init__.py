"""Systems of the toy domain."""
