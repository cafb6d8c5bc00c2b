"""Measurement: arms compared over paired lifetimes, intervals, tables and pictures."""
