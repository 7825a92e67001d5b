"""The interfaces of other packages, on ours: ``tfmot``."""
