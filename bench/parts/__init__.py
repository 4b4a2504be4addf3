"""What can be measured, one module each: ``measure(how) -> Found``."""
