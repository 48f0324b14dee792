"""Helpers of the end-to-end suite: processes, raw HTTP on both sides, metrics, waiting."""
